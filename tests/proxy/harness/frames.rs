//! Frames of a WebSocket as they appear on the wire (RFC 6455 §5), and its opening handshake (§4). The stand-in for LM Studio
//! takes this file in by its path.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The last frame of its message.
pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Any frame, sound or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV1 to RSV3 and the opcode.
    pub first: u8,
    pub masking_key: Option<[u8; 4]>,
    /// Unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(first: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { first, masking_key: None, payload: payload.into() }
    }

    /// A whole message of text.
    pub fn text(payload: &str) -> Frame {
        Frame::new(FIN | TEXT, payload)
    }

    /// Masked, as all frames of a client are.
    pub fn masked(self) -> Frame {
        Frame { masking_key: Some([0x37, 0xfa, 0x21, 0x3d]), ..self }
    }

    /// The same message in fragments of at most so many bytes.
    pub fn in_fragments(&self, bytes_max: usize) -> Vec<Frame> {
        if self.payload.is_empty() {
            return vec![self.clone()];
        }
        let mut fragments: Vec<Frame> =
            self.payload.chunks(bytes_max).map(|piece| Frame { payload: piece.to_vec(), ..self.clone() }).collect();
        for fragment in fragments.iter_mut().skip(1) {
            fragment.first = CONTINUATION;
        }
        for fragment in &mut fragments {
            fragment.first &= !FIN;
        }
        if let Some(last) = fragments.last_mut() {
            last.first |= FIN;
        }
        fragments
    }

    pub fn is_final(&self) -> bool {
        self.first & FIN != 0
    }

    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mask = if self.masking_key.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.payload.len() {
            length @ ..126 => bytes.push(mask | length as u8),
            length @ ..0x1_0000 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.masking_key.iter().flatten());
        bytes.extend(masked(self.masking_key, &self.payload));
        bytes
    }

    /// The frame that `bytes` begin with, and how many of them it takes; `None` while it is not whole.
    pub fn read(bytes: &[u8]) -> Option<(Frame, usize)> {
        let &[first, second, ..] = bytes else { return None };
        let (length, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*bytes[2..].first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*bytes[2..].first_chunk()?), 10),
            length => (u64::from(length), 2),
        };
        let mut masking_key = None;
        if second & 0x80 != 0 {
            masking_key = Some(*bytes[at..].first_chunk()?);
            at += 4;
        }
        let length = usize::try_from(length).ok()?;
        let payload = masked(masking_key, bytes[at..].get(..length)?).collect();
        Some((Frame { first, masking_key, payload }, at + length))
    }
}

/// Masking undoes itself.
fn masked(key: Option<[u8; 4]>, payload: &[u8]) -> impl Iterator<Item = u8> {
    payload.iter().zip(key.unwrap_or_default().into_iter().cycle()).map(|(byte, key)| byte ^ key)
}

/// What Sec-WebSocket-Accept says to who sent this Sec-WebSocket-Key.
pub fn accept(key: &str) -> String {
    let named = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, named.as_bytes()).as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..4)
            .map(move |n| if n > group.len() { '=' } else { char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]) })
    });
    groups.collect()
}
