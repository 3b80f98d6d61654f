//! Sums of two numbers, added digit by digit.

use super::Question;
use crate::random::SplitMix64;

/// A sum of two numbers of at most `n_digits` digits, and its key. The completion adds the digits from the last to the first, each with the
/// carry, and ends with the sum: `47+385=` is completed by `7+5=12;4+8+1=13;0+3+1=4;432`.
pub(crate) fn sum(n_digits: u32, random: &mut SplitMix64) -> (Question, String) {
    let limit = 10usize.pow(n_digits);
    let (a, b) = (random.below(limit), random.below(limit));
    let (mut left, mut right, mut carry, mut steps) = (a, b, 0, String::new());
    while left > 0 || right > 0 || steps.is_empty() {
        let (x, y) = (left % 10, right % 10);
        let added = if carry > 0 { format!("{x}+{y}+{carry}") } else { format!("{x}+{y}") };
        steps += &format!("{added}={};", x + y + carry);
        carry = (x + y + carry) / 10;
        (left, right) = (left / 10, right / 10);
    }
    let answer = (a + b).to_string();
    (Question { prompt: format!("{a}+{b}="), completion: steps + &answer, answer }, format!("{}+{}", a.max(b), a.min(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_right() {
        let mut random = SplitMix64::new(5);
        for _ in 0..2000 {
            let (Question { prompt, completion, answer }, key) = sum(3, &mut random);
            let numbers: Vec<usize> = prompt.trim_end_matches('=').split('+').map(|number| number.parse().unwrap()).collect();
            assert_eq!(answer.parse(), Ok(numbers[0] + numbers[1]));
            assert_eq!(key, format!("{}+{}", numbers[0].max(numbers[1]), numbers[0].min(numbers[1])));
            let (steps, last) = completion.rsplit_once(';').unwrap();
            assert_eq!(last, answer);
            let results: Vec<usize> = steps
                .split(';')
                .map(|step| {
                    let (added, result) = step.split_once('=').unwrap();
                    let result: usize = result.parse().unwrap();
                    assert_eq!(added.split('+').map(|digit| digit.parse::<usize>().unwrap()).sum::<usize>(), result, "{completion}");
                    result
                })
                .collect();
            // The last digits of the steps, and the first carry, spell the sum.
            let spelt: usize = results.iter().rev().fold(results[results.len() - 1] / 10, |sum, result| 10 * sum + result % 10);
            assert_eq!(spelt, numbers[0] + numbers[1], "{prompt}{completion}");
        }
    }
}
