//! JSON into the tree: RFC 8259 to the letter, with lines, without duplicate keys.

use std::collections::HashSet;

use super::{DEPTH_MAX, Entry, Lines, Node, SyntaxError, Value};

/// Reads a JSON document.
///
/// # Errors
///
/// The first place where it is not JSON.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut parser = Parser {
        text,
        at: 0,
        lines: Lines::new(text),
    };
    parser.blank();
    let node = parser.node(1)?;
    parser.blank();
    if parser.at < text.len() {
        return Err(parser.wrong("there is more after the end: write one object per file"));
    }
    match node.value {
        Value::Table(_) => Ok(node),
        _ => Err(SyntaxError {
            line: node.line,
            message: "write an object here, as { \"instance\": { … } }".to_owned(),
        }),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Offset of the next byte; always at the start of a character.
    at: usize,
    lines: Lines,
}

type Parsed<T> = Result<T, SyntaxError>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn line(&self) -> usize {
        self.lines.at(self.at)
    }

    fn wrong(&self, message: &str) -> SyntaxError {
        SyntaxError {
            line: self.line(),
            message: format!("this is not JSON: {message}"),
        }
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes one byte if it is the next after blanks.
    fn take(&mut self, byte: u8) -> bool {
        self.blank();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn node(&mut self, depth: usize) -> Parsed<Node> {
        let line = self.line();
        let value = match self.peek() {
            Some(b'{' | b'[') if depth > DEPTH_MAX => {
                return Err(self.wrong("it is nested too deep: write at most 32 levels"));
            }
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { line, value })
    }

    fn word(&mut self) -> Parsed<Value> {
        for (word, value) in [
            ("true", Value::Flag(true)),
            ("false", Value::Flag(false)),
            ("null", Value::Null),
        ] {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("a value is missing: write a text in quotes, a number, true or false"))
    }

    fn table(&mut self, depth: usize) -> Parsed<Value> {
        self.at += 1;
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        if self.take(b'}') {
            return Ok(Value::Table(entries));
        }
        loop {
            self.blank();
            let line = self.line();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a key is missing: write one in double quotes"));
            }
            let key = self.string()?;
            if !seen.insert(key.clone()) {
                return Err(SyntaxError {
                    line,
                    message: format!("the key {key:?} stands here twice: take one out"),
                });
            }
            if !self.take(b':') {
                return Err(self.wrong("a ':' is missing after the key"));
            }
            self.blank();
            let node = self.node(depth + 1)?;
            entries.push(Entry { key, line, node });
            if self.take(b'}') {
                return Ok(Value::Table(entries));
            }
            if !self.take(b',') {
                return Err(self.wrong("write ',' or '}' after a value"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Parsed<Value> {
        self.at += 1;
        let mut nodes = Vec::new();
        if self.take(b']') {
            return Ok(Value::List(nodes));
        }
        loop {
            self.blank();
            nodes.push(self.node(depth + 1)?);
            if self.take(b']') {
                return Ok(Value::List(nodes));
            }
            if !self.take(b',') {
                return Err(self.wrong("write ',' or ']' after a value"));
            }
        }
    }

    fn string(&mut self) -> Parsed<String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let Some(stop) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') else {
                return Err(self.wrong("the closing '\"' of a text is missing"));
            };
            let (plain, tail) = rest.split_at(stop);
            text.push_str(plain);
            self.at += stop;
            match tail.as_bytes().first() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => return Err(self.wrong("a text may not run over the line: write \\n for it")),
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        self.at += 1;
        let byte = self.peek();
        let plain = match byte {
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.wrong("after '\\' only \" \\ / b f n r t u may stand")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode(&mut self) -> Parsed<char> {
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !self.rest().starts_with("\\u") {
                return Err(self.wrong("the second half of a \\u pair is missing"));
            }
            self.at += 2;
            let second = self.hex()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.wrong("the second half of a \\u pair is missing"));
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.wrong("this \\u is not a character"))
    }

    fn hex(&mut self) -> Parsed<u32> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.wrong("write four hexadecimal digits after \\u"));
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| self.wrong("this \\u is not a character"))
    }

    fn number(&mut self) -> Parsed<Value> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let (number, _) = rest.split_at(end);
        // serde_json knows what a JSON number looks like.
        let parsed: Option<f64> = serde_json::from_str(number).ok();
        let value = match (number.parse::<i128>(), parsed) {
            (_, None) => return Err(self.wrong("this is not a number: write one, as 1 or 0.5")),
            (Ok(whole), Some(_)) => Value::Int(whole),
            (Err(_), Some(float)) => Value::Float(float),
        };
        self.at += end;
        Ok(value)
    }
}
