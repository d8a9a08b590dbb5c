//! Constant expressions of the assembler, in 64-bit arithmetic that wraps.
//!
//! ```text
//! or     := and { '|' and }             unary   := ('-' | '~' | '+') unary | primary
//! and    := shift { '&' shift }         primary := number | 'c' | symbol | '.' | '(' or ')'
//! shift  := sum { ('<<' | '>>') sum }            | %hi(or) | %lo(or)
//! sum    := product { ('+' | '-') product }
//! product:= unary { '*' unary }
//! ```
//!
//! `>>` shifts zeros in. `%hi` and `%lo` split an address for LUI and a signed 16-bit offset.

/// Gives the value of a symbol, `.` included.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Result<i64, String>;

/// The value of `text`.
///
/// # Errors
/// What is wrong with `text`, as a sentence.
pub fn evaluate(text: &str, lookup: Lookup) -> Result<i64, String> {
    let mut parser = Parser { rest: text.trim(), lookup };
    let value = parser.binary(0)?;
    match parser.rest {
        "" => Ok(value),
        rest => Err(format!("`{rest}` is left over in the expression `{text}`")),
    }
}

/// True for a name that a label or a constant may have.
pub fn is_symbol(text: &str) -> bool {
    let is_whole = symbol_length(text) == text.len();
    is_whole && !matches!(text, "" | ".") && !text.starts_with(is_digit)
}

/// Binary operators by level, those that bind least first.
const LEVELS: [&[&str]; 5] = [&["|"], &["&"], &["<<", ">>"], &["+", "-"], &["*"]];

struct Parser<'a> {
    rest: &'a str,
    lookup: Lookup<'a>,
}

impl<'a> Parser<'a> {
    fn binary(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            let right = self.binary(level + 1)?;
            left = apply(operator, left, right);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<i64, String> {
        if self.take("-") {
            Ok(self.unary()?.wrapping_neg())
        } else if self.take("~") {
            Ok(!self.unary()?)
        } else if self.take("+") {
            self.unary()
        } else {
            self.primary()
        }
    }

    fn primary(&mut self) -> Result<i64, String> {
        if self.take("%hi") {
            Ok((self.parenthesis()?.wrapping_add(0x8000) >> 16) & 0xffff)
        } else if self.take("%lo") {
            Ok(i64::from(self.parenthesis()? as i16))
        } else if self.rest.starts_with('(') {
            self.parenthesis()
        } else if self.rest.starts_with('\'') {
            self.character()
        } else {
            self.number_or_symbol()
        }
    }

    fn parenthesis(&mut self) -> Result<i64, String> {
        self.expect("(")?;
        let value = self.binary(0)?;
        self.expect(")")?;
        Ok(value)
    }

    fn character(&mut self) -> Result<i64, String> {
        let first_char_count = if self.rest.starts_with("'\\") { 3 } else { 2 };
        let mut after = self.rest.char_indices().skip(first_char_count);
        let quoted = after.find(|(_, next)| *next == '\'');
        let (end, _) = quoted.ok_or(format!("`{}` lacks its closing quote", self.rest))?;
        let text = unescape(&self.rest[1..end])?;
        let [byte] = text[..] else {
            return Err(format!("`{}` is not one byte", &self.rest[..=end]));
        };
        self.advance(end + 1);
        Ok(i64::from(byte))
    }

    fn number_or_symbol(&mut self) -> Result<i64, String> {
        let length = symbol_length(self.rest);
        let (word, is_number) = (&self.rest[..length], self.rest.starts_with(is_digit));
        self.advance(length);
        match (length, is_number) {
            (0, _) => Err(format!("a value is missing before `{}`", self.rest)),
            (_, true) => number(word),
            (_, false) => (self.lookup)(word),
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        let is_there = self.take(token);
        is_there.then_some(()).ok_or(format!("`{token}` is missing before `{}`", self.rest))
    }

    fn take(&mut self, token: &str) -> bool {
        let is_there = self.rest.starts_with(token);
        if is_there {
            self.advance(token.len());
        }
        is_there
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }
}

fn apply(operator: &str, left: i64, right: i64) -> i64 {
    let count = u32::try_from(right).ok().filter(|count| *count < 64);
    match operator {
        "|" => left | right,
        "&" => left & right,
        "<<" => count.map_or(0, |count| left << count),
        ">>" => count.map_or(0, |count| (left as u64 >> count) as i64),
        "+" => left.wrapping_add(right),
        "-" => left.wrapping_sub(right),
        "*" => left.wrapping_mul(right),
        _ => unreachable!("{operator} is not in LEVELS"),
    }
}

fn number(word: &str) -> Result<i64, String> {
    let lower = word.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        _ => (&lower[..], 10),
    };
    let value = u64::from_str_radix(&digits.replace('_', ""), radix);
    value.map(|value| value as i64).map_err(|_| format!("{word} is no number of 64 bits"))
}

/// Bytes at the start of `text` that a number or symbol can have.
fn symbol_length(text: &str) -> usize {
    let is_part = |part: char| part.is_ascii_alphanumeric() || matches!(part, '_' | '.');
    text.find(|part| !is_part(part)).unwrap_or(text.len())
}

fn is_digit(first: char) -> bool {
    first.is_ascii_digit()
}

/// The bytes of a quoted text: `\n`, `\r`, `\t`, `\0`, `\\`, `\"` and `\'` stand for one byte each.
///
/// # Errors
/// Names the escape that is none of these.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        let unit = match (next, (next == '\\').then(|| chars.next()).flatten()) {
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('t')) => '\t',
            ('\\', Some('0')) => '\0',
            ('\\', Some(same @ ('\\' | '"' | '\''))) => same,
            ('\\', other) => return Err(format!("`\\{}` is no escape", other.unwrap_or(' '))),
            (plain, _) => plain,
        };
        bytes.extend(unit.encode_utf8(&mut [0; 4]).bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str) -> Result<i64, String> {
        evaluate(text, &|name| match name {
            "here" => Ok(0x1_8004),
            "." => Ok(64),
            _ => Err(format!("{name} is not defined")),
        })
    }

    #[test]
    fn operators_bind_as_in_c() {
        let table = [
            ("'\\''", 39),
            ("'#'", 35),
            ("%lo(here)", -0x7ffc), // the low half is signed, so the high half is one more
            ("%hi(here)", 2),
            ("%hi(here + 4) + 1", 3),
            ("0xffffffffffffffff", -1),
            ("-1 >> 63", 1), // zeros come in from the left
            ("1 << 64", 0),
            ("1 << 2 + 1", 8),
            ("1 | 6 & 3 << 1", 7),
            ("10 - 3 - 2", 5),
            ("2 + 3 * -4", -10),
            ("~(1 | 2)", -4),
            (". + here", 0x1_8044),
            ("0b1010_1010", 0xaa),
        ];
        for (text, value) in table {
            assert_eq!(value_of(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_says_why() {
        let table = [
            ("", "a value is missing before ``"),
            ("1 +", "a value is missing before ``"),
            ("(1", "`)` is missing before ``"),
            ("1 2", "`2` is left over in the expression `1 2`"),
            ("0x", "0x is no number of 64 bits"),
            ("12ab", "12ab is no number of 64 bits"),
            ("'ab'", "`'ab'` is not one byte"),
            ("'a", "`'a` lacks its closing quote"),
            ("nowhere", "nowhere is not defined"),
        ];
        for (text, message) in table {
            assert_eq!(value_of(text), Err(message.to_string()), "{text}");
        }
    }
}
