//! Where errors stand: the same in every dialect, for servers of one borrow those of another, and their frameworks have
//! shapes of their own.
//!
//! - `{"error": {"message", "code", "type"}}`, also nested (`error.error`), as text, as a number, in a list: OpenAI, LM
//!   Studio, llama.cpp; gateways around them.
//! - `{"object": "error", "message", "type", "code"}`: vLLM, SGLang, LMDeploy.
//! - `{"detail": "…"}`, `{"detail": [{"loc", "msg", "type"}]}`: FastAPI, the latter for what Pydantic refuses (422).
//! - `{"error": "…", "message": "…"}`, `{"error": "…", "details": "…"}`: Node's frameworks, llama-box;
//!   `{"error": "…", "error_description": "…"}`: OAuth (RFC 6749 §5.2).
//!
//! Not every `error` is one: `null`, `{}`, `""`, a code of 0 without words.

use super::counts;
use super::role::JsonRole;

/// The role of a member that every dialect shares: of errors, and where counts stand.
pub fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match at {
        JsonRole::Root | JsonRole::Reply => match name {
            b"error" | b"errors" => JsonRole::Error,
            b"message" | b"msg" => JsonRole::Note,
            b"detail" | b"details" | b"error_description" => JsonRole::Detail,
            // Where a dialect's documents are known by their `type`.
            b"object" | b"type" => JsonRole::KindBeside,
            _ => JsonRole::Skip,
        },
        JsonRole::Choice | JsonRole::OtherChoice if name == b"error" => JsonRole::Error,
        JsonRole::Error | JsonRole::ErrorMessage => match name {
            b"message" | b"msg" => JsonRole::ErrorMessage,
            b"code" | b"type" | b"status" => JsonRole::ErrorCode,
            b"error" | b"errors" => JsonRole::Error,
            b"detail" | b"details" => JsonRole::Detail,
            b"reason" | b"description" | b"cause" => JsonRole::ErrorReason,
            _ => JsonRole::Skip,
        },
        JsonRole::Detail => match name {
            b"msg" | b"message" | b"detail" | b"error" => JsonRole::Detail,
            _ => JsonRole::Skip,
        },
        _ => counts::member(at, name),
    }
}
