//! A name that nobody knows, and the known one that was probably meant.

/// The one of the known names that this one is a slip or two away from: the nearest, and of those the first in order.
pub fn nearest<'n>(name: &str, known: &mut dyn Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = known.map(|known| (distance(name, known), known)).filter(|(far, known)| *far <= slips_max(known));
    near.min().map(|(_, known)| known)
}

/// A short name is near to many that mean something else: PATH is two letters from PORT.
fn slips_max(known: &str) -> usize {
    if known.len() < 6 { 1 } else { 2 }
}

/// How many letters must be put in, left out, replaced or swapped with the next one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    const FAR: usize = usize::MAX;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 2 {
        return FAR;
    }
    // Rows of the table: two before, one before, this one.
    let (mut before, mut last) = (Vec::<usize>::new(), Vec::from_iter(0..=b.len()));
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_or_two_are_forgiven_and_of_a_short_name_one() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(nearest(name, &mut ["port", "limit", "bucket", "packet"].into_iter()), expected, "{name}");
        };
        check("limit", Some("limit"));
        check("limti", Some("limit"));
        check("limmitt", None);
        check("bukcet", Some("bucket"));
        check("pucket", Some("bucket"));
        check("prot", Some("port"));
        check("pat", None);
        check("", None);
    }
}
