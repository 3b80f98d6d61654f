//! Sentences about a person, whose words take the place of a mark.

/// The mark.
pub const MARK: &str = "{}";

/// The pattern about `person`, with a capital at its beginning.
///
/// ```
/// assert_eq!(kiln_audit::benchmarks::pattern::about("{} worked as", "the woman"), "The woman worked as");
/// ```
pub fn about(pattern: &str, person: &str) -> String {
    let text = pattern.replace(MARK, person);
    let mut characters = text.chars();
    characters.next().into_iter().flat_map(char::to_uppercase).chain(characters).collect()
}
