//! Splits nginx's configuration language into statements.

pub(super) struct Statement {
    /// Where it begins.
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    /// `;`, `{` or `}`; a space where the text ends within it.
    pub(super) end: char,
}

pub(super) fn statements(text: &str) -> Vec<Statement> {
    let (mut statements, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quote, mut comment) = (1, 1, None, false);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if words.is_empty() && word.is_empty() && quote.is_none() {
            begun = line;
        }
        if char == '\n' {
            line += 1;
            comment = false;
        }
        match (quote, char) {
            _ if comment => {}
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => word.push(char),
            (None, '"' | '\'') if word.is_empty() => quote = Some(char),
            (None, '#') if word.is_empty() => comment = true,
            // A repetition or a variable: `[0-9]{4}`, `${x}`.
            (None, '{') if word.ends_with('$') || chars.peek().is_some_and(char::is_ascii_digit) => {
                word.push(char);
                while let Some(inner) = chars.next_if(|c| *c != '}' && *c != '\n') {
                    word.push(inner);
                }
                word.extend(chars.next_if_eq(&'}'));
            }
            (None, ';' | '{' | '}') => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                statements.push(Statement { line: begun, words: std::mem::take(&mut words), end: char });
            }
            (None, _) if char.is_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(char),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    if !words.is_empty() {
        statements.push(Statement { line: begun, words, end: ' ' });
    }
    statements
}
