//! What questions leave for later ones of the same kind, in bounded memory: the last one first, and what was not asked
//! for the longest goes.

/// Something that is worth keeping.
pub(super) trait Keep {
    /// So many of them at most.
    const COUNT_MAX: usize;
    /// What they take together at most.
    const BYTES_MAX: usize;

    /// Memory that it takes, nearly.
    fn bytes(&self) -> usize;
}

/// All that is kept of one sort.
#[derive(Debug)]
pub(super) struct KeptAnswers<T>(Vec<T>);

impl<T> Default for KeptAnswers<T> {
    fn default() -> KeptAnswers<T> {
        KeptAnswers(Vec::new())
    }
}

impl<T: Keep> KeptAnswers<T> {
    /// Hands out the one of this kind.
    pub fn take(&mut self, is_of_kind: impl FnMut(&T) -> bool) -> Option<T> {
        self.0.iter().position(is_of_kind).map(|at| self.0.remove(at))
    }

    /// Takes it back, and lets go of what is too much.
    pub fn put(&mut self, one: T) {
        self.0.insert(0, one);
        while self.0.len() > T::COUNT_MAX || self.bytes() > T::BYTES_MAX {
            self.0.pop();
        }
    }

    /// Lets go of what is not true any more.
    pub fn retain(&mut self, is_true: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(is_true);
    }

    /// Whether there is anything to let go of.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(T::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Keep for &str {
        const COUNT_MAX: usize = 3;
        const BYTES_MAX: usize = 10;

        fn bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes_and_the_oldest_goes() {
        let mut kept = KeptAnswers::default();
        for one in ["a", "b", "c", "d"] {
            kept.put(one);
        }
        assert_eq!(kept.0, ["d", "c", "b"]);
        assert_eq!((kept.take(|one| *one == "b"), kept.take(|one| *one == "a")), (Some("b"), None));
        kept.put("nine bytes");
        assert_eq!(kept.0, ["nine bytes"]);
        kept.put("eleven bytes");
        assert!(kept.is_empty());
        kept.put("a");
        kept.retain(|one| *one != "a");
        assert!(kept.is_empty());
    }
}
