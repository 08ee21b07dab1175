//! Where errors stand, and what they say: the same in every dialect, for servers of one borrow those of another, and
//! their frameworks have shapes of their own.
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
use super::role::JsonRole::{self, *};
use crate::limits::ERROR_WORDS_BYTES_MAX;

/// The role of a member that every dialect shares: of errors, and where counts stand.
pub fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match at {
        Root | Reply => match name {
            b"error" | b"errors" => Error,
            b"message" | b"msg" => Note,
            b"detail" | b"details" | b"error_description" => Detail,
            // Where a dialect's documents are known by their `type`.
            b"object" | b"type" => KindBeside,
            _ => counts::member(at, name),
        },
        Choice | OtherChoice if name == b"error" => Error,
        Error | ErrorMessage => match name {
            b"message" | b"msg" => ErrorMessage,
            b"code" | b"type" | b"status" => ErrorCode,
            b"error" | b"errors" => Error,
            b"detail" | b"details" => Detail,
            b"reason" | b"description" | b"cause" => ErrorReason,
            _ => Skip,
        },
        Detail => match name {
            b"msg" | b"message" | b"detail" | b"error" => Detail,
            _ => Skip,
        },
        _ => counts::member(at, name),
    }
}

/// What a document says of an error. Empty where not told.
#[derive(Debug, Default)]
pub struct ToldError {
    /// An error is reported.
    pub is_told: bool,
    message: Vec<u8>,
    /// Other words of it.
    reason: Vec<u8>,
    /// Code or type of the error.
    code: Vec<u8>,
    /// `message` at the root.
    note: Vec<u8>,
    /// `detail`; several are joined, as messages are.
    detail: Vec<u8>,
    /// The message is a text by itself, a label perhaps, and what stands beside says more.
    is_label: bool,
    /// Errors that are open.
    open: u32,
}

impl ToldError {
    /// Another document begins.
    pub fn clear(&mut self) {
        (self.is_told, self.is_label, self.open) = (false, false, 0);
        let words = [&mut self.message, &mut self.reason, &mut self.code, &mut self.note, &mut self.detail];
        words.into_iter().for_each(Vec::clear);
    }

    /// An error that is an object or a list begins.
    pub fn begin(&mut self) {
        self.open += 1;
    }

    /// It is over.
    pub fn end(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Takes a text.
    pub fn tell(&mut self, at: JsonRole, value: &[u8]) {
        let is_error = !value.is_empty() && value != b"0";
        match at {
            ErrorMessage | ErrorReason | Detail | ErrorCode => {
                self.is_told |= self.open > 0 && is_error;
            }
            Error if !value.is_empty() => (self.is_told, self.is_label) = (true, true),
            _ => {}
        }
        match at {
            Error | ErrorMessage => join(&mut self.message, value),
            Detail => join(&mut self.detail, value),
            ErrorReason => value.clone_into(&mut self.reason),
            ErrorCode => value.clone_into(&mut self.code),
            // Where an object was expected.
            Note | Beginning => value.clone_into(&mut self.note),
            _ => {}
        }
    }

    /// Takes a number: `"error": 500`.
    pub fn tell_number(&mut self, at: JsonRole, written: &[u8]) {
        if at == Error || at == ErrorCode {
            self.tell(ErrorCode, written);
            self.is_told |= at == Error && written != b"0";
        }
    }

    /// The document is the reply to a request that failed: what it says is an error, however it says it.
    pub fn request_failed(&mut self) {
        self.is_told |= !self.note.is_empty() || !self.detail.is_empty();
    }

    /// What the error says, in its own words as far as it has any.
    pub fn words(&self) -> Option<Vec<u8>> {
        if !self.is_told {
            return None;
        }
        let told = [&self.message, &self.note, &self.detail, &self.reason, &self.code];
        let Some(first) = told.into_iter().find(|words| !words.is_empty()) else {
            return Some(b"an error without a message".to_vec());
        };
        // `{"error": "Bad Request", "message": "…"}`
        let mut beside = [&self.note, &self.detail].into_iter().filter(|words| !words.is_empty() && *words != first);
        Some(match beside.next().filter(|_| self.is_label) {
            Some(more) => [first, &b": "[..], more].concat(),
            None => first.clone(),
        })
    }
}

/// Words of an error, of which there may be several, in a list or one in another.
fn join(words: &mut Vec<u8>, more: &[u8]) {
    if more.is_empty() || words == more || words.len() + more.len() > ERROR_WORDS_BYTES_MAX {
        return;
    }
    if !words.is_empty() {
        words.extend_from_slice(b"; ");
    }
    words.extend_from_slice(more);
}
