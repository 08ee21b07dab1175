//! Which bytes of a stream may leave for the client now, and which wait.
//!
//! Bytes wait when their line may still become `data: [DONE]`, when their event may still be one that is to be removed,
//! and from the terminal event on. The hold knows places, not events: [`super::tap`] tells it where a line or an event
//! begins and what became of it.
//!
//! ```text
//!  Open ──close──▶ Closed ──release──▶ Released: only what may have to be removed waits
//! ```

/// The hold. Whoever tells it of a place names an offset in the bytes of the current feed. Marks are counted from the
/// first byte that is held, as if all that follows were held, too.
///
/// Invariant: between two feeds `held` is empty unless a mark stands at its beginning or within it.
#[derive(Debug, Default)]
pub struct Hold {
    /// What waits: bytes of earlier feeds, and of this one up to `from`.
    held: Vec<u8>,
    /// Bytes of this feed before it are in `held`, have left, or were removed.
    from: usize,
    /// Mark: the line that may become `[DONE]`.
    line: Option<usize>,
    /// Mark: the event that may be removed.
    event: Option<usize>,
    /// Mark: where the next event begins, if this line turns out to be part of one.
    fork: Option<usize>,
    /// Mark: the terminal event.
    closed: Option<usize>,
    released: bool,
}

impl Hold {
    /// The current line begins at `at` and may become the terminal one.
    pub fn doubt_line(&mut self, at: usize) {
        if self.closed.is_none() && !self.released {
            self.line = Some(self.place(at));
        }
    }

    /// It did not.
    pub fn trust_line(&mut self, out: &mut Vec<u8>) {
        self.line = None;
        self.flush(out);
    }

    /// The current event begins at `at` and may have to be removed.
    pub fn doubt_event(&mut self, at: usize) {
        self.event = Some(self.place(at));
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

    /// The line that begins at `at` is of the event before, or of the next one, which then may have to be removed.
    pub fn fork(&mut self, at: usize) {
        if self.fork.is_none() {
            self.fork = Some(self.place(at));
        }
    }

    /// It was of the event before.
    pub fn join(&mut self, out: &mut Vec<u8>) {
        self.fork = None;
        self.flush(out);
    }

    /// The next event has begun there, and may have to be removed in its turn.
    pub fn part(&mut self) {
        self.event = self.fork.take();
    }

    /// Removes the doubted event, which ends before offset `end`.
    pub fn remove_event(&mut self, input: &[u8], end: usize) {
        let end = self.place(end);
        self.remove_to(input, end);
    }

    /// Removes the doubted event, which ends where the next one begins.
    pub fn remove_to_fork(&mut self, input: &[u8]) {
        if let Some(end) = self.fork {
            self.remove_to(input, end);
        }
    }

    /// Removes the byte at `at`, the rest of a line end that was removed.
    pub fn remove_byte(&mut self, input: &[u8], at: usize) {
        self.event = Some(self.place(at));
        self.remove_event(input, at + 1);
    }

    /// The terminal event begins at `at`, or earlier where something was doubted: from there on all is held.
    pub fn close(&mut self, at: usize) {
        if self.closed.is_none() && !self.released {
            self.closed = Some(self.first_mark().unwrap_or(self.place(at)));
            (self.event, self.line, self.fork) = (None, None, None);
        }
    }

    /// Whether the terminal event was seen and is held.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The feed is over: what is not doubted leaves.
    pub fn finish(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let first = self.first_mark().unwrap_or(self.place(input.len()));
        if first < self.held.len() {
            self.hold(input, input.len());
            self.let_go(first, out);
        } else {
            // What is before the mark need not be held for that.
            let free = self.from + first - self.held.len();
            out.append(&mut self.held);
            out.extend_from_slice(&input[self.from..free]);
            self.held.extend_from_slice(&input[free..]);
            self.marks().for_each(|mark| *mark -= first);
        }
        self.from = 0;
    }

    /// What is held for the terminal event or a partial line leaves. An event that may have to be removed still waits.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.released |= self.closed.is_some();
        (self.closed, self.line) = (None, None);
        self.let_go(self.first_mark().unwrap_or(self.held.len()), out);
    }

    /// All that is held leaves.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        (self.line, self.event, self.fork, self.closed) = (None, None, None, None);
        out.append(&mut self.held);
    }

    fn marks(&mut self) -> impl Iterator<Item = &mut usize> {
        [&mut self.line, &mut self.event, &mut self.fork, &mut self.closed].into_iter().flatten()
    }

    /// The first byte that must wait.
    fn first_mark(&self) -> Option<usize> {
        [self.line, self.event, self.fork, self.closed].into_iter().flatten().min()
    }

    fn place(&self, at: usize) -> usize {
        self.held.len() + at - self.from
    }

    fn remove_to(&mut self, input: &[u8], end: usize) {
        let Some(start) = self.event.take() else { return };
        self.line = self.line.filter(|line| *line >= end);
        if end > self.held.len() {
            self.hold(input, self.from + end - self.held.len());
        }
        self.held.drain(start..end);
        // What is closed, closed before it.
        self.marks().filter(|mark| **mark >= end).for_each(|mark| *mark -= end - start);
    }

    /// Bytes of this feed up to `to` wait.
    fn hold(&mut self, input: &[u8], to: usize) {
        self.held.extend_from_slice(&input[self.from..to]);
        self.from = to;
    }

    /// So many of the bytes held leave.
    fn let_go(&mut self, bytes: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.held[..bytes]);
        self.held.drain(..bytes);
        self.marks().for_each(|mark| *mark = mark.saturating_sub(bytes));
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty() && self.first_mark().is_none() {
            out.append(&mut self.held);
        }
    }
}
