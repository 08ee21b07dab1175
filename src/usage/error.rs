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
use super::place::Place;

/// The place of a member that every dialect shares: of errors, and where counts stand.
pub fn member(at: Place, name: &[u8]) -> Place {
    match at {
        Place::Root | Place::Reply => match name {
            b"error" | b"errors" => Place::Error,
            b"message" | b"msg" => Place::Note,
            b"detail" | b"details" | b"error_description" => Place::Detail,
            // Where a dialect's documents are known by their `type`.
            b"object" | b"type" => Place::KindBeside,
            _ => Place::Skip,
        },
        Place::Choice | Place::OtherChoice if name == b"error" => Place::Error,
        Place::Error | Place::ErrorMessage => match name {
            b"message" | b"msg" => Place::ErrorMessage,
            b"code" | b"type" | b"status" => Place::ErrorCode,
            b"error" | b"errors" => Place::Error,
            b"detail" | b"details" => Place::Detail,
            b"reason" | b"description" | b"cause" => Place::ErrorReason,
            _ => Place::Skip,
        },
        Place::Detail => match name {
            b"msg" | b"message" | b"detail" | b"error" => Place::Detail,
            _ => Place::Skip,
        },
        _ => counts::member(at, name),
    }
}
