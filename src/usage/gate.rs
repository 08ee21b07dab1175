//! Which bytes of a stream may leave for the client now, and which wait.
//!
//! Bytes wait when their line may still become `data: [DONE]`, when their event may still be the usage event that is
//! to be removed, and from the terminal event on. The gate knows offsets, not events: [`super::tap`] tells it where a
//! line or an event begins and what became of it.
//!
//! ```text
//!  Open ──close──▶ Closed ──release──▶ Released: everything passes
//! ```

/// The gate. Offsets are those of the bytes of the current feed.
///
/// Invariant: `held` is empty unless a mark stands at 0, for what is held began in an earlier feed.
#[derive(Debug, Default)]
pub struct Gate {
    held: Vec<u8>,
    /// Bytes of this feed before it have left, or were removed.
    from: usize,
    /// The line that may become `[DONE]`.
    line: Option<usize>,
    /// The event that may be removed.
    event: Option<usize>,
    /// The terminal event.
    closed: Option<usize>,
    released: bool,
}

impl Gate {
    /// The current line begins at `at` and may become the terminal one.
    pub fn doubt_line(&mut self, at: usize) {
        if self.closed.is_none() && !self.released {
            self.line = Some(at);
        }
    }

    /// It did not.
    pub fn trust_line(&mut self, out: &mut Vec<u8>) {
        self.line = None;
        self.flush(out);
    }

    /// The current event begins at `at` and may have to be removed.
    pub fn doubt_event(&mut self, at: usize) {
        if self.closed.is_none() && !self.released {
            self.event = Some(at);
        }
    }

    /// It has not.
    pub fn trust_event(&mut self, out: &mut Vec<u8>) {
        self.event = None;
        self.flush(out);
    }

    /// Whether a line is doubted.
    pub fn doubts_line(&self) -> bool {
        self.line.is_some()
    }

    /// Whether an event is doubted.
    pub fn doubts_event(&self) -> bool {
        self.event.is_some()
    }

    /// Removes the doubted event, which ends before offset `end`.
    pub fn remove_event(&mut self, input: &[u8], end: usize, out: &mut Vec<u8>) {
        if let Some(start) = self.event.take() {
            self.line = None;
            self.held.clear();
            out.extend_from_slice(&input[self.from..start]);
            self.from = end;
        }
    }

    /// Removes the byte at `at`, the rest of a line end that was removed.
    pub fn remove_byte(&mut self, input: &[u8], at: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&input[self.from..at]);
        self.from = at + 1;
    }

    /// The terminal event begins at `at`, or earlier where something was doubted: from there on all is held.
    pub fn close(&mut self, at: usize) {
        if self.closed.is_none() && !self.released {
            self.closed = Some(self.event.or(self.line).unwrap_or(at));
            self.event = None;
            self.line = None;
        }
    }

    /// Whether the terminal event was seen and is held.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The feed is over: what is not doubted leaves.
    pub fn finish(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mark = self.closed.or(self.event).or(self.line);
        let free = mark.unwrap_or(input.len());
        out.extend_from_slice(&input[self.from..free]);
        self.held.extend_from_slice(&input[free..]);
        for mark in [&mut self.closed, &mut self.event, &mut self.line].into_iter().flatten() {
            *mark = 0;
        }
        self.from = 0;
    }

    /// All that is held leaves. After a terminal event nothing is held any more.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.released |= self.closed.is_some();
        self.closed = None;
        self.event = None;
        self.line = None;
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty() && self.event.is_none() && self.line.is_none() && self.closed.is_none() {
            out.append(&mut self.held);
        }
    }
}
