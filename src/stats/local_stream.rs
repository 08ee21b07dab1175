//! A reply of the proxy's own whose end nobody knows when it begins: an export, events.

use std::io::{self, Write};
use std::mem;

use flate2::write::GzEncoder;

use crate::calendar::{http_date, now_ms};
use crate::client::{Client, Lend, Loan};
use crate::http::chunked::{LAST_CHUNK, write_chunk};
use crate::http::reply::{ReplyFraming, write_relayed_head};

/// Such a reply on its way. Dropped before its end, its connection is cut.
pub(super) struct LocalStream {
    loan: Loan,
    chunked: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
    unsent: Vec<u8>,
}

impl LocalStream {
    /// Begins one with these fields, perhaps compressed; nothing is sent yet. `None`: HEAD asks for no more, and has it.
    pub fn begin(mut lend: Lend, fields: &[(&str, &[u8])], gzip: Option<GzEncoder<Vec<u8>>>) -> Option<LocalStream> {
        let chunked = lend.head.minor_version() >= 1;
        if !chunked {
            // Only the end of the connection can mark the end of the reply.
            lend.loan.make_last_unframed();
        }
        let framing = if chunked { ReplyFraming::Chunked } else { ReplyFraming::None };
        let (date, mut unsent) = (http_date(now_ms()), Vec::new());
        let encoding: &[(&str, &[u8])] = if gzip.is_some() { &[("Content-Encoding", b"gzip")] } else { &[] };
        let fields = [fields, encoding, &[("Date", date.as_bytes())]].concat();
        write_relayed_head(&mut unsent, (200, "OK"), fields.iter().copied(), (framing, ""), lend.persistence());
        if lend.head.method() == "HEAD" {
            lend.loan.give_back_with(unsent, true);
            return None;
        }
        Some(LocalStream { loan: lend.loan, chunked, gzip, unsent })
    }

    /// Whom it goes to.
    pub fn client(&self) -> &Client {
        self.loan.client()
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Adds a part. Compressed, it may be sent with a later one.
    pub fn push(&mut self, part: &[u8]) {
        let Some(gzip) = &mut self.gzip else { return self.frame(part) };
        gzip.write_all(part).expect("writing into memory does not fail");
        let ready = mem::take(gzip.get_mut());
        self.frame(&ready);
    }

    fn frame(&mut self, part: &[u8]) {
        if self.chunked {
            write_chunk(&mut self.unsent, part);
        } else {
            self.unsent.extend_from_slice(part);
        }
    }

    /// Sends what the socket takes at once.
    pub fn send_now(&mut self) -> io::Result<()> {
        let sent = self.loan.client().write_now(&self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Sends everything, waiting where the client reads slowly.
    pub fn send(&mut self) -> io::Result<()> {
        self.loan.client().write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// The reply is whole: its connection goes back to its loop, which sends the rest.
    pub fn end(mut self) {
        if let Some(gzip) = self.gzip.take() {
            let rest = gzip.finish().expect("writing into memory does not fail");
            self.frame(&rest);
        }
        if self.chunked {
            self.unsent.extend_from_slice(LAST_CHUNK);
        }
        self.loan.give_back_with(self.unsent, true);
    }

    /// The same, and the connection's last.
    pub fn end_for_good(mut self) {
        self.loan.make_last();
        self.end();
    }
}
