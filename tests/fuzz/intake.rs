//! The rules that hold for any bytes whatsoever. `cargo test` runs it over bounded mutations of known requests, cargo-fuzz over
//! what it thinks of.

use lms_metrics_proxy::http::target::query_pairs;
use lms_metrics_proxy::http::{ChunkDecoder, Framing, HostPolicy, Refusal, RequestHead, read_head};
use lms_metrics_proxy::routes::route;

/// Decoded bodies beyond this are refused here, so that a fuzzer reaches that refusal, too.
const BODY_BYTES_MAX: u64 = 4096;

/// Reads `bytes` as what one client sends, whole and in pieces, and panics where a rule is broken.
pub fn fuzz_intake(bytes: &[u8]) {
    let whole = read_all(bytes, bytes.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(whole, read_all(bytes, step), "the outcome depends on how the bytes were cut ({step} at a time)");
    }
    let policy = HostPolicy::new(&[]);
    for request in &whole.requests {
        let head = &request.head;
        for (name, value) in head.fields() {
            assert!(
                !name.is_empty() && !value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()),
                "a control byte passed"
            );
        }
        assert!(head.host().is_some() || head.minor_version() == 0, "HTTP/1.1 passed without Host");
        assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic()), "a target that is no URI passed");
        // Neither may panic; what they decide has tests of its own.
        policy.allows(head.host().unwrap_or_default());
        drop(route(head.path()));
        query_pairs(head.query().unwrap_or_default());
    }
}

/// Everything that was understood of one client's bytes.
#[derive(Debug, PartialEq)]
struct Understood {
    /// The whole requests, in order.
    requests: Vec<Request>,
    /// Why reading ended before the bytes did.
    refusal: Option<Refusal>,
    /// Bytes behind the last whole request. Not counted after a refusal, where nothing is read any more.
    left: usize,
}

/// One whole request.
#[derive(Debug)]
struct Request {
    head: RequestHead,
    body: Vec<u8>,
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        let line = |head: &RequestHead| (head.method().to_owned(), head.target().to_owned(), head.minor_version());
        let meaning =
            |head: &RequestHead| (head.meaning.framing, head.meaning.keep_alive, head.meaning.expect_continue);
        line(&self.head) == line(&other.head)
            && meaning(&self.head) == meaning(&other.head)
            && self.head.host() == other.head.host()
            && self.head.fields().eq(other.head.fields())
            && self.body == other.body
    }
}

/// Reads as the front does, with `step` bytes arriving at a time, until the connection would be closed.
fn read_all(bytes: &[u8], step: usize) -> Understood {
    let mut understood = Understood { requests: Vec::new(), refusal: None, left: 0 };
    // What arrived is bytes[begin..arrived]; what is before `begin` belongs to requests read earlier.
    let (mut begin, mut arrived) = (0, 0);
    let mut reading = Reading::Head { scanned: 0 };
    loop {
        match advance(reading, bytes, &mut begin, arrived) {
            Err(refusal) => {
                understood.refusal = Some(refusal);
                return understood;
            }
            Ok(Reading::Whole(request)) => {
                let goes_on = request.head.meaning.keep_alive;
                understood.left = bytes.len() - begin;
                understood.requests.push(request);
                if !goes_on {
                    return understood;
                }
                reading = Reading::Head { scanned: 0 };
            }
            Ok(unfinished) if arrived < bytes.len() => {
                reading = unfinished;
                arrived = (arrived + step).min(bytes.len());
            }
            Ok(_) => {
                understood.left = bytes.len() - begin;
                return understood;
            }
        }
    }
}

enum Reading {
    Head { scanned: usize },
    Chunks(RequestHead, ChunkDecoder, Vec<u8>),
    Length(RequestHead, usize),
    Whole(Request),
}

fn advance(reading: Reading, bytes: &[u8], begin: &mut usize, arrived: usize) -> Result<Reading, Refusal> {
    let here = &bytes[*begin..arrived];
    match reading {
        Reading::Head { mut scanned } => {
            let Some((head, consumed)) = read_head(here, &mut scanned)? else { return Ok(Reading::Head { scanned }) };
            *begin += consumed;
            let next = match head.meaning.framing {
                Framing::None => return Ok(Reading::Whole(Request { head, body: Vec::new() })),
                Framing::Length(length) if length > BODY_BYTES_MAX => return Err(Refusal::BodyTooLarge),
                Framing::Length(length) => Reading::Length(head, length as usize),
                Framing::Chunked => Reading::Chunks(head, ChunkDecoder::new(BODY_BYTES_MAX), Vec::new()),
            };
            advance(next, bytes, begin, arrived)
        }
        Reading::Chunks(head, mut decoder, mut body) => {
            let (consumed, done) = decoder.decode(here, &mut body)?;
            assert!(consumed <= here.len() && (done || consumed == here.len()), "bytes were left without need");
            *begin += consumed;
            Ok(if done { Reading::Whole(Request { head, body }) } else { Reading::Chunks(head, decoder, body) })
        }
        Reading::Length(head, length) if here.len() < length => Ok(Reading::Length(head, length)),
        Reading::Length(head, length) => {
            *begin += length;
            Ok(Reading::Whole(Request { head, body: here[..length].to_vec() }))
        }
        Reading::Whole(request) => Ok(Reading::Whole(request)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [&str; 8] = [
        "GET /v1/models HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\n\r\nGET /health HTTP/1.0\r\n\r\n",
        "\r\nPOST /v1/chat/completions?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET / HTTP/1.0\r\n\r\n",
        "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\nGET",
        "GET http://[::1]:80?x HTTP/1.1\r\nHost: b\r\nConnection: close, x-y\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];

    /// Bytes that mean something to a parser of this grammar.
    const TELLING: [u8; 8] = [b'\r', b'\n', b' ', b':', b'0', 0, 0x80, b'/'];

    #[test]
    fn every_single_change_of_known_requests_keeps_the_rules() {
        for seed in SEEDS {
            for at in 0..seed.len() {
                let (before, after) = (&seed.as_bytes()[..at], &seed.as_bytes()[at + 1..]);
                fuzz_intake(&[before, after].concat());
                for byte in TELLING {
                    fuzz_intake(&[before, &[byte], after].concat());
                }
            }
        }
    }

    #[test]
    fn random_mixtures_of_known_requests_keep_the_rules() {
        // Xorshift (Marsaglia, 2003): the same mixtures in every run.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        for _ in 0..3000 {
            let mut bytes = Vec::new();
            for _ in 0..1 + below(4) {
                let seed = SEEDS[below(SEEDS.len())].as_bytes();
                let (a, b) = (below(seed.len() + 1), below(seed.len() + 1));
                bytes.extend_from_slice(&seed[a.min(b)..a.max(b)]);
                bytes.extend_from_slice(&TELLING[..below(3)]);
            }
            fuzz_intake(&bytes);
        }
    }

    #[test]
    fn pipelined_requests_are_all_read() {
        let understood = read_all(SEEDS[1].as_bytes(), 3);
        let bodies: Vec<&[u8]> = understood.requests.iter().map(|request| &request.body[..]).collect();
        assert_eq!(bodies, [&b"hello"[..], b""]);
        assert_eq!((understood.refusal, understood.left), (None, 0));
    }
}
