//! Rust source reduced to its code, so that a rule about code is not broken by a comment or a string.

/// `source` with every comment and every string or character literal turned into spaces; line breaks stay where they are.
pub fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let (length, is_code) = token(rest);
        let (token, tail) = rest.split_at(length);
        if is_code {
            code.push_str(token);
        } else {
            code.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = tail;
    }
    code
}

/// Whether `word` stands in `code` as a word of its own; a macro is named with its `!`, an attribute with its `#[`.
pub fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let joins = |neighbour: Option<char>, own: Option<char>| neighbour.is_some_and(is_word) && own.is_some_and(is_word);
        !joins(before, word.chars().next()) && !joins(after, word.chars().next_back())
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length in bytes of the token that `rest` begins with, and whether it is code.
fn token(rest: &str) -> (usize, bool) {
    let word_bytes = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    if let ("r" | "br" | "cr", after) = rest.split_at(word_bytes)
        && let Some(bytes) = raw_string(after)
    {
        return (word_bytes + bytes, false);
    }
    if word_bytes > 0 {
        return (word_bytes, true);
    }
    let blank = match rest.as_bytes() {
        [b'/', b'/', ..] => Some(rest.find('\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(block_comment(rest)),
        [b'"', ..] => Some(string(rest)),
        [b'\'', ..] => character(rest),
        _ => None,
    };
    blank.map_or_else(|| (rest.chars().next().map_or(0, char::len_utf8), true), |bytes| (bytes, false))
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut position) = (0, 0);
    while position < rest.len() {
        match &rest.as_bytes()[position..] {
            [b'/', b'*', ..] => (depth, position) = (depth + 1, position + 2),
            [b'*', b'/', ..] => (depth, position) = (depth - 1, position + 2),
            _ => position += 1,
        }
        if depth == 0 {
            return position;
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    let end = rest[1..].find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    end.map_or(rest.len(), |index| index + 2)
}

/// The length from the first `#` or quote on; `None` for a raw identifier.
fn raw_string(rest: &str) -> Option<usize> {
    let n_hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[n_hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(n_hashes));
    Some(body.find(&close).map_or(rest.len(), |index| n_hashes + 1 + index + close.len()))
}

/// `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut after_quote = rest[1..].chars();
    let first = after_quote.next()?;
    if first == '\\' {
        return rest[3..].find('\'').map(|index| index + 4);
    }
    (after_quote.next() == Some('\'')).then(|| first.len_utf8() + 2)
}

#[test]
fn only_code_is_left() {
    let source = r###"
a<'a>(); // b "
/* c /* d */ e */ f
"g \" // h" i 'j' '\'' '"' k
r#"l "m" n"# r#type br"o\" p '\u{41}' 'é' q
"r
s" t
"###;
    let expected: Vec<&[&str]> = vec![&[], &["a<'a>();"], &["f"], &["i", "k"], &["r#type", "p", "q"], &[], &["t"]];
    let code = code_only(source);
    let words: Vec<Vec<&str>> = code.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, expected);
}

#[test]
fn a_word_is_found_only_whole() {
    assert!(has_word("let x = dbg!(1);", "dbg!"));
    assert!(has_word("#[ignore = \"slow\"]", "#[ignore"));
    assert!(!has_word("#![deny(unsafe_code)]", "unsafe"));
    assert!(!has_word("my_todo!()", "todo!"));
}
