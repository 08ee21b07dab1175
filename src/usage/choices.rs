//! Which choices of an answer appear, and which of them have told why they ended.

/// A bit for each index; those from 63 on share one.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndedChoices {
    seen: u64,
    ended: u64,
}

impl EndedChoices {
    /// A choice appears, and has perhaps ended.
    pub fn note(&mut self, index: u64, has_ended: bool) {
        let bit = 1 << index.min(63);
        self.seen |= bit;
        self.ended |= if has_ended { bit } else { 0 };
    }

    /// Whether none appeared.
    pub fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// Takes those of a later document.
    pub fn merge(&mut self, later: EndedChoices) {
        self.seen |= later.seen;
        self.ended |= later.ended;
    }

    /// Whether there are some, and all have ended.
    pub fn have_all_ended(&self) -> bool {
        self.seen != 0 && self.ended & self.seen == self.seen
    }

    /// How many have ended, of those that can be told apart.
    pub fn count_ended(&self) -> u64 {
        self.ended.count_ones().into()
    }
}

/// The choices of a document.
#[derive(Clone, Copy, Debug, Default)]
pub struct DocumentChoices {
    /// There are some.
    pub are_told: bool,
    /// `index` of the first one, as told.
    pub first_index: Option<u64>,
    /// Those that were read.
    pub ended: EndedChoices,
    /// The one that is being read: its index, and whether it has ended.
    index: u64,
    has_ended: bool,
}

impl DocumentChoices {
    /// A choice begins, at this position of the list.
    pub fn begin(&mut self, position: u32) {
        self.are_told = true;
        (self.index, self.has_ended) = (u64::from(position), false);
    }

    /// It tells its index.
    pub fn index(&mut self, told: Option<u64>) {
        self.index = told.unwrap_or(self.index);
    }

    /// It tells why it ended.
    pub fn finish(&mut self) {
        self.has_ended = true;
    }

    /// It is over.
    pub fn end(&mut self) {
        self.ended.note(self.index, self.has_ended);
    }
}
