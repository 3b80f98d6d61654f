//! The text of a sequence under generation: as it grows, and up to a string that stops it.

use crate::Result;
use crate::tokenizer::Tokenizer;

/// Tokens of the prompt that the first words of a continuation are decoded behind: some tokenizers take the space off the first word of a
/// text.
const CONTEXT: usize = 8;

/// The text of one sequence, token by token.
#[derive(Debug)]
pub struct Growing<'a> {
    tokenizer: &'a Tokenizer,
    stop: &'a [String],
    ids: Vec<u32>,
    /// Where the tokens begin that the newest are decoded behind, and where those begin that are not in the text yet: bytes of one letter
    /// may be spread over several.
    context: usize,
    unread: usize,
    text: String,
    /// Bytes of the text that were handed out.
    handed_out: usize,
    is_stopped: bool,
}

impl<'a> Growing<'a> {
    /// A text that continues `prompt` and ends before the first of the strings `stop`.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &[u32], stop: &'a [String]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
        let unread = ids.len();
        Self { tokenizer, stop, ids, context: 0, unread, text: String::new(), handed_out: 0, is_stopped: false }
    }

    /// Takes in the next token.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn push(&mut self, id: u32) -> Result<()> {
        self.ids.push(id);
        let [before, after] = [self.unread, self.ids.len()].map(|end| self.tokenizer.decode(&self.ids[self.context..end]));
        let (before, after) = (before?, after?);
        // U+FFFD stands for the beginning of a letter whose other bytes are still to come.
        match after.strip_prefix(&before) {
            Some(new) if !new.is_empty() && !new.ends_with('\u{fffd}') => {
                (self.context, self.unread) = (self.unread, self.ids.len());
                self.append(new);
            }
            _ => {}
        }
        Ok(())
    }

    /// The text is over: what was held back for want of bytes is part of it.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn finish(&mut self) -> Result<()> {
        let [before, after] = [self.unread, self.ids.len()].map(|end| self.tokenizer.decode(&self.ids[self.context..end]));
        let (before, after) = (before?, after?);
        self.unread = self.ids.len();
        if let Some(new) = after.strip_prefix(&before) {
            self.append(new);
        }
        Ok(())
    }

    fn append(&mut self, new: &str) {
        if self.is_stopped {
            return;
        }
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let mut start = self.text.len().saturating_sub(longest);
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        self.text.push_str(new);
        let found = self.stop.iter().filter_map(|stop| self.text[start..].find(stop.as_str())).min();
        if let Some(place) = found {
            self.text.truncate(start + place);
            self.is_stopped = true;
        }
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a stop string has come up.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// What is new since the last call and certain: not what may turn out to be the beginning of a stop string while `goes_on`.
    pub fn news(&mut self, goes_on: bool) -> &str {
        let is_beginning = |&place: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.text[place..]));
        let places = || (self.handed_out..self.text.len()).filter(|&place| self.text.is_char_boundary(place));
        let certain = match goes_on && !self.is_stopped {
            true => places().find(is_beginning).unwrap_or(self.text.len()),
            false => self.text.len(),
        };
        let start = self.handed_out;
        self.handed_out = certain.max(start);
        &self.text[start..self.handed_out]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["the cat sat on the mat, the cat"].into_iter(), 270).expect("a tokenizer")
    }

    /// The text after each token, what was handed out, and whether it was stopped.
    fn grown(text: &str, stop: &[String]) -> (Vec<String>, String, bool) {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode(text).expect("ids");
        let mut growing = Growing::new(&tokenizer, &ids[..1], stop);
        let (mut texts, mut news) = (Vec::new(), String::new());
        for &id in &ids[1..] {
            growing.push(id).expect("a text");
            news.push_str(growing.news(true));
            texts.push(growing.text().to_owned());
        }
        growing.finish().expect("a text");
        news.push_str(growing.news(false));
        assert_eq!(news, growing.text());
        (texts, news, growing.is_stopped())
    }

    #[test]
    fn letters_of_several_tokens_come_whole() {
        let (texts, all, _) = grown("the cät ☃", &[]);
        assert_eq!(all, "the cät ☃");
        assert!(texts.iter().all(|text| !text.contains('\u{fffd}') && all.starts_with(text.as_str())), "{texts:?}");
    }

    #[test]
    fn a_text_ends_before_a_stop_string() {
        let stop = |text: &str| vec![text.to_owned(), "never".to_owned()];
        assert_eq!(
            grown("the cat sat on the mat", &stop(" on ")),
            (grown("the cat sat on the mat", &stop(" on ")).0, "the cat sat".into(), true)
        );
        let (_, all, stopped) = grown("the cat sat", &stop("sat on"));
        assert!(!stopped && all == "the cat sat", "the beginning of a stop string that does not come stays: {all}");
    }

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        let tokenizer = tokenizer();
        let stop = ["xy".to_owned()];
        let mut growing = Growing::new(&tokenizer, &[1], &stop);
        let ids = |text: &str| tokenizer.encode(text).expect("ids")[1..].to_vec();
        for id in ids("abx") {
            growing.push(id).expect("a text");
        }
        assert_eq!(growing.news(true), "ab");
        for id in ids("z") {
            growing.push(id).expect("a text");
        }
        assert_eq!(growing.news(true), "xz");
    }
}
