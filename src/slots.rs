//! Numbered places for what a loop polls: the number is the token that events come with.
//!
//! A place that is given up during a turn is taken again only after it, so that an event which the turn still has in
//! hand meets nobody else.

/// The places, each empty or taken.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
    /// Given up during this turn.
    freed: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { places: Vec::new(), free: Vec::new(), freed: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// A number that nobody has. What shall be there is [`Slots::put`] there, or the number given back.
    pub fn reserve(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        })
    }

    /// Puts something on a place that was reserved, or that was taken from.
    pub fn put(&mut self, at: usize, thing: T) {
        self.places[at] = Some(thing);
    }

    /// What is there.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.places.get(at)?.as_ref()
    }

    /// What is there, to change it.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.places.get_mut(at)?.as_mut()
    }

    /// Takes what is there; the place stays reserved.
    pub fn take(&mut self, at: usize) -> Option<T> {
        self.places.get_mut(at)?.take()
    }

    /// Gives a place up whose thing was taken.
    pub fn give_back(&mut self, at: usize) {
        debug_assert!(self.places[at].is_none(), "something is still there");
        self.freed.push(at);
    }

    /// Takes what is there, and gives the place up.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let thing = self.take(at)?;
        self.give_back(at);
        Some(thing)
    }

    /// No event is in hand any more: what was given up can be taken again.
    pub fn end_turn(&mut self) {
        self.free.append(&mut self.freed);
    }

    /// All numbers that were ever given.
    pub fn numbers(&self) -> std::ops::Range<usize> {
        0..self.places.len()
    }

    /// All things.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// All things, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(slots: &mut Slots<char>, thing: char) -> usize {
        let at = slots.reserve();
        slots.put(at, thing);
        at
    }

    #[test]
    fn a_place_given_up_is_taken_again_only_after_the_turn() {
        let mut slots = Slots::default();
        let (a, b) = (put(&mut slots, 'a'), put(&mut slots, 'b'));
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.get(a), None, "a late event meets nobody");
        assert_eq!(slots.remove(a), None, "and gives nothing up twice");
        let c = put(&mut slots, 'c');
        assert_eq!((a, b, c), (0, 1, 2));
        slots.end_turn();
        assert_eq!((put(&mut slots, 'd'), put(&mut slots, 'e')), (0, 3));
        assert_eq!(slots.iter().collect::<String>(), "dbce");
    }

    #[test]
    fn what_is_taken_for_a_while_keeps_its_place() {
        let mut slots = Slots::default();
        let at = put(&mut slots, 'a');
        assert_eq!(slots.take(at), Some('a'));
        slots.end_turn();
        assert_ne!(put(&mut slots, 'b'), at);
        slots.put(at, 'c');
        slots.iter_mut().for_each(|thing| thing.make_ascii_uppercase());
        assert_eq!((slots.get(at), slots.numbers()), (Some(&'C'), 0..2));
    }

    #[test]
    fn a_number_that_was_never_given_is_nobody_s() {
        let mut slots: Slots<char> = Slots::default();
        assert!(slots.get(7).is_none() && slots.get_mut(7).is_none());
        assert!(slots.take(7).is_none() && slots.remove(7).is_none());
        let reserved = slots.reserve();
        slots.give_back(reserved);
        assert_eq!(slots.iter().count(), 0);
    }
}
