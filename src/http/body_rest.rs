//! What is still to come of a body, of a request or of a reply.

use super::chunked::ChunkDecoder;
use super::refusal::Refusal;

/// The rest of a body.
pub enum BodyRest {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(ChunkDecoder),
    /// Whatever comes until the connection ends.
    Close,
}

impl BodyRest {
    /// Nothing.
    pub const NONE: BodyRest = BodyRest::Length(0);

    /// Whether nothing is.
    pub fn is_over(&self) -> bool {
        matches!(self, BodyRest::Length(0))
    }

    /// Appends to `body` what of it is in `bytes`; how many of them were the body's.
    pub fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Refusal> {
        match self {
            BodyRest::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if body.is_empty() && *left == 0 {
                    // The usual small body comes in one piece: one exact allocation.
                    body.reserve_exact(taken);
                }
                body.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            BodyRest::Chunks(decoder) => {
                let (taken, is_over) = decoder.decode(bytes, body)?;
                if is_over {
                    *self = BodyRest::NONE;
                }
                Ok(taken)
            }
            BodyRest::Close => {
                body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }
}
