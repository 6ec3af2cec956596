// SPDX-License-Identifier: Apache-2.0
//! From a long sequence that fails to a short one: parts are left out for as long as it still fails
//! (delta debugging: Zeller, Hildebrandt, 2002).

use crate::steps::Step;

/// Returns a part of `steps` that `fails`, which all of them do. `may_go_on` bounds the time.
pub(crate) fn shrink(
    steps: Vec<Step>,
    fails: &mut dyn FnMut(&[Step]) -> bool,
    may_go_on: &dyn Fn() -> bool,
) -> Vec<Step> {
    let mut steps = steps;
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut has_shrunk = false;
        while at < steps.len() {
            if !may_go_on() {
                return steps;
            }
            let end = (at + size).min(steps.len());
            let without: Vec<_> = [&steps[..at], &steps[end..]].concat();
            match fails(&without) {
                true => {
                    steps = without;
                    has_shrunk = true;
                }
                false => at = end,
            }
        }
        size = match (size, has_shrunk) {
            (1, true) => 1,
            (size, _) => size / 2,
        };
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_it_fail_is_left() {
        let step = |slot| Step::Sync { slot };
        let steps: Vec<_> = (0..40).map(step).collect();
        let mut fails = |part: &[Step]| [7, 31].iter().all(|slot| part.contains(&step(*slot)));
        let left = shrink(steps, &mut fails, &|| true);
        assert_eq!(left, [step(7), step(31)]);
    }
}
