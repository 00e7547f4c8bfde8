//! A small set of combinations in which every two values of different options meet at least once.
use std::collections::HashSet;

/// Two values: (option, value) twice, the first option before the second.
type Pair = ((usize, usize), (usize, usize));

/// Rows of value indices, one per option, where option `i` has `sizes[i]` values; the same rows every time. Greedy:
/// each row is the combination that covers most of what is left, which is near the smallest set for a few options.
pub(crate) fn covering(sizes: &[usize]) -> Vec<Vec<usize>> {
    let all = product(sizes);
    let mut left: HashSet<Pair> = all.iter().flat_map(|row| pairs(row)).collect();
    let mut rows = Vec::new();
    while !left.is_empty() {
        let gain = |row: &&Vec<usize>| pairs(row).filter(|pair| left.contains(pair)).count();
        // The last of equals: max_by_key is stable, so the set never varies.
        let Some(best) = all.iter().max_by_key(gain) else {
            break;
        };
        for pair in pairs(best) {
            left.remove(&pair);
        }
        rows.push(best.clone());
    }
    rows
}

fn product(sizes: &[usize]) -> Vec<Vec<usize>> {
    sizes.iter().fold(vec![Vec::new()], |rows, &size| {
        let extended = rows.iter().flat_map(|row| {
            (0..size).map(move |value| {
                let mut longer = row.clone();
                longer.push(value);
                longer
            })
        });
        extended.collect()
    })
}

fn pairs(row: &[usize]) -> impl Iterator<Item = Pair> {
    (0..row.len()).flat_map(move |a| (a + 1..row.len()).map(move |b| ((a, row[a]), (b, row[b]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_values_meet_and_the_set_is_small() {
        let sizes = [3, 4, 2, 2, 3, 4, 3];
        let rows = covering(&sizes);
        let covered: HashSet<Pair> = rows.iter().flat_map(|row| pairs(row)).collect();
        let wanted: HashSet<Pair> = product(&sizes).iter().flat_map(|row| pairs(row)).collect();
        assert_eq!(covered, wanted);
        assert!((16..=24).contains(&rows.len()), "{} rows", rows.len());
    }
}
