//! Lists in order, whatever they are of. Behind these functions is one sort of places in a list: the standard library's
//! own takes six kilobytes for each type and order. It stays where the lists of requests are sorted.

use std::cmp::Ordering;

/// Sorts a list by what `key` makes of each of it. What is alike stays in its order.
pub fn sort_by_key<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(list, |one, other| key(one).cmp(&key(other)));
}

/// Sorts a list. What is alike stays in its order.
pub fn sort_by<T>(list: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let places = sorted_places(list.len(), &|one, other| compare(&list[one], &list[other]));
    let mut unsorted: Vec<Option<T>> = list.drain(..).map(Some).collect();
    list.extend(places.into_iter().filter_map(|place| unsorted[place].take()));
}

fn sorted_places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|one, other| compare(*one, *other));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_stays_in_its_order() {
        let mut list = Vec::from(["bb", "a", "cc", "ddd", "b", ""].map(str::to_owned));
        sort_by_key(&mut list, String::len);
        assert_eq!(list, ["", "a", "b", "bb", "cc", "ddd"]);
        sort_by(&mut list, |one, other| other.len().cmp(&one.len()));
        assert_eq!(list, ["ddd", "bb", "cc", "a", "b", ""]);
    }
}
