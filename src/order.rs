//! Lists in order, whatever they are of. Behind these functions is one sort of places in a list: the standard library's
//! own takes six kilobytes for each type and order, and is quicker: requests on their way go on using that.

use std::cmp::Ordering;

/// Sorts a list by what `key` makes of each of it. What is alike stays in its order.
pub fn sort_by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(list, |one, other| key(one).cmp(&key(other)));
}

/// Sorts a list. What is alike stays in its order.
pub fn sort_by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut places = sorted_places(list.len(), &|one, other| compare(&list[one], &list[other]));
    for at in 0..list.len() {
        // Each swap brings one to its place.
        while places[at] != at {
            let place = places[at];
            list.swap(at, place);
            places.swap(at, place);
        }
    }
}

/// Where each belongs.
fn sorted_places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|one, other| compare(*one, *other));
    let mut places = vec![0; count];
    for (place, at) in order.into_iter().enumerate() {
        places[at] = place;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_stays_in_its_order() {
        let mut list = ["bb", "a", "cc", "ddd", "b", ""];
        sort_by_key(&mut list, |word| word.len());
        assert_eq!(list, ["", "a", "b", "bb", "cc", "ddd"]);
        sort_by(&mut list, |one, other| other.len().cmp(&one.len()));
        assert_eq!(list, ["ddd", "bb", "cc", "a", "b", ""]);
    }
}
