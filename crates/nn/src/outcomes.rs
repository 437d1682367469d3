//! What a network makes of each image of an evaluation.

use std::cmp::Ordering;

/// The most probable classes that are kept of an image.
pub const TOP: usize = 5;

/// The images of an evaluation, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// Most probable classes of an image: [`TOP`], or all where there are fewer.
    pub top: usize,
    /// The id of each image in its split.
    pub ids: Vec<u32>,
    /// Its class.
    pub labels: Vec<i32>,
    /// The probability of its class.
    pub own: Vec<f32>,
    /// `top` classes for each, the most probable first; of equal ones the lower index.
    pub classes: Vec<i32>,
    /// Their probabilities.
    pub probabilities: Vec<f32>,
}

impl Outcomes {
    /// None yet, of a network of `classes` classes.
    pub(crate) fn new(classes: usize) -> Self {
        Self { top: classes.min(TOP), ..Self::default() }
    }

    /// Adds the image `id` of class `label`, whose classes have the probabilities `row`.
    pub(crate) fn add(&mut self, id: u32, label: i32, row: &[f32]) {
        self.ids.push(id);
        self.labels.push(label);
        self.own.push(usize::try_from(label).ok().and_then(|label| row.get(label).copied()).unwrap_or(0.0));
        let mut order: Vec<usize> = (0..row.len()).collect();
        let above = |a: &usize, b: &usize| row[*b].partial_cmp(&row[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b));
        if self.top < order.len() {
            order.select_nth_unstable_by(self.top, above);
            order.truncate(self.top);
        }
        order.sort_unstable_by(above);
        self.classes.extend(order.iter().map(|class| *class as i32));
        self.probabilities.extend(order.iter().map(|class| row[*class]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_classes_come_first() {
        let mut outcomes = Outcomes::new(7);
        outcomes.add(9, 5, &[0.1, 0.3, 0.05, 0.3, 0.05, 0.2, 0.0]);
        assert_eq!(
            (outcomes.top, &outcomes.ids[..], &outcomes.labels[..], &outcomes.own[..]),
            (5, &[9][..], &[5][..], &[0.2][..])
        );
        assert_eq!(outcomes.classes, [1, 3, 5, 0, 2]);
        assert_eq!(outcomes.probabilities, [0.3, 0.3, 0.2, 0.1, 0.05]);
        let mut few = Outcomes::new(2);
        few.add(0, 1, &[0.25, 0.75]);
        assert_eq!(few.classes, [1, 0]);
    }
}
