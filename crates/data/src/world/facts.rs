//! The people of the sample world and what is true of them.

use super::grammar;
use crate::random::SplitMix64;

/// A person; no two share a fact.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub name: &'static str,
    pub pronoun: &'static str,
    pub town: &'static str,
    pub job: &'static str,
    pub dish: &'static str,
    pub pet: &'static str,
}

impl Person {
    /// The facts for the slots of the grammar that ask for them.
    pub fn bound(&self) -> [(&'static str, &'static str); 6] {
        [("name", self.name), ("pronoun", self.pronoun), ("town", self.town), ("job", self.job), ("dish", self.dish), ("pet", self.pet)]
    }
}

/// The people of the world of `seed`: who they are is fixed, where they live and what they do and like is not.
pub(crate) fn people(seed: u64) -> Vec<Person> {
    let mut random = SplitMix64::keyed(&[seed]);
    let mut dealt = |rule| {
        let mut words = grammar::alternatives(rule).to_vec();
        random.shuffle(&mut words);
        words
    };
    let (towns, jobs, dishes, pets) = (dealt("town"), dealt("job"), dealt("dish"), dealt("pet"));
    // The names of the grammar are of a woman and a man in turn.
    let person = |(i, &name): (usize, &&'static str)| Person {
        name,
        pronoun: ["she", "he"][i % 2],
        town: towns[i],
        job: jobs[i],
        dish: dishes[i],
        pet: pets[i],
    };
    grammar::alternatives("name").iter().enumerate().map(person).collect()
}
