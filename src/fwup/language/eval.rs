//! Arithmetic of `define-eval`: 64-bit integers, `+ - * / ^`, a sign, parentheses, unit suffixes.

use thiserror::Error;

#[derive(Debug, PartialEq, Eq, Error)]
pub enum EvalError {
    #[error("a number, or more operands, are expected at its end")]
    Incomplete,
    #[error("'{text}' is not expected there")]
    Unexpected { text: String },
    #[error("division by zero")]
    DivisionByZero,
    #[error("an exponent must be 0 to 63")]
    Exponent,
    #[error("a value does not fit 64 bits")]
    Overflow,
    #[error("more than {MOST_PENDING} operations are open at once")]
    TooDeep,
}

/// Computes an expression. Two stacks, as the classic shunting-yard method has them.
pub fn evaluate(expression: &[u8]) -> Result<i64, EvalError> {
    let mut rest = expression.trim_ascii();
    let mut machine = Machine { operands: Vec::new(), operators: Vec::new() };
    // An operand must come next, not an operator.
    let mut wants_operand = true;
    while let Some((&byte, after)) = rest.split_first() {
        let unexpected = || EvalError::Unexpected { text: super::shown(rest) };
        match (byte, wants_operand) {
            (b'0'..=b'9', true) => {
                let (value, after) = number(rest).ok_or_else(unexpected)??;
                push(&mut machine.operands, value)?;
                wants_operand = false;
                rest = after.trim_ascii_start();
                continue;
            }
            (b'(', true) => push(&mut machine.operators, Operator::Open)?,
            (b'-', true) => push(&mut machine.operators, Operator::Negate)?,
            (b')', false) => machine.close().ok_or_else(unexpected)??,
            (_, false) => {
                let operator = Operator::binary(byte).ok_or_else(unexpected)?;
                machine.apply_before(operator)?;
                push(&mut machine.operators, operator)?;
                wants_operand = true;
            }
            (_, true) => return Err(unexpected()),
        }
        rest = after.trim_ascii_start();
    }
    if wants_operand {
        return Err(EvalError::Incomplete);
    }
    machine.finish()
}

struct Machine {
    operands: Vec<i64>,
    operators: Vec<Operator>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Open,
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Negate,
}

impl Operator {
    fn binary(byte: u8) -> Option<Self> {
        Some(match byte {
            b'+' => Self::Add,
            b'-' => Self::Subtract,
            b'*' => Self::Multiply,
            b'/' => Self::Divide,
            b'^' => Self::Power,
            _ => return None,
        })
    }

    fn precedence(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Add | Self::Subtract => 1,
            Self::Multiply | Self::Divide => 2,
            Self::Power | Self::Negate => 3,
        }
    }
}

impl Machine {
    /// Applies what binds at least as strongly as the operator that comes next.
    fn apply_before(&mut self, next: Operator) -> Result<(), EvalError> {
        // Power and sign associate to the right: equals wait.
        let least = next.precedence() + u8::from(next == Operator::Power);
        while self.operators.last().is_some_and(|operator| operator.precedence() >= least) {
            self.apply()?;
        }
        Ok(())
    }

    /// Applies what is open since the last parenthesis; `None` if there is none.
    fn close(&mut self) -> Option<Result<(), EvalError>> {
        while *self.operators.last()? != Operator::Open {
            if let Err(error) = self.apply() {
                return Some(Err(error));
            }
        }
        self.operators.pop();
        Some(Ok(()))
    }

    fn finish(mut self) -> Result<i64, EvalError> {
        while let Some(operator) = self.operators.last() {
            if *operator == Operator::Open {
                return Err(EvalError::Incomplete);
            }
            self.apply()?;
        }
        self.operands.pop().ok_or(EvalError::Incomplete)
    }

    fn apply(&mut self) -> Result<(), EvalError> {
        let operator = self.operators.pop().ok_or(EvalError::Incomplete)?;
        let right = self.operands.pop().ok_or(EvalError::Incomplete)?;
        let mut left = || self.operands.pop().ok_or(EvalError::Incomplete);
        let value = match operator {
            Operator::Open => return Err(EvalError::Incomplete),
            Operator::Negate => right.checked_neg(),
            Operator::Add => left()?.checked_add(right),
            Operator::Subtract => left()?.checked_sub(right),
            Operator::Multiply => left()?.checked_mul(right),
            Operator::Divide if right == 0 => return Err(EvalError::DivisionByZero),
            Operator::Divide => left()?.checked_div(right),
            Operator::Power => {
                let exponent = u32::try_from(right).ok().filter(|&exponent| exponent <= 63);
                left()?.checked_pow(exponent.ok_or(EvalError::Exponent)?)
            }
        };
        push(&mut self.operands, value.ok_or(EvalError::Overflow)?)
    }
}

fn push<T>(stack: &mut Vec<T>, item: T) -> Result<(), EvalError> {
    if stack.len() >= MOST_PENDING {
        return Err(EvalError::TooDeep);
    }
    stack.push(item);
    Ok(())
}

/// The number at the start, with its unit, and what stands behind it.
fn number(text: &[u8]) -> Option<Result<(i64, &[u8]), EvalError>> {
    let is_hexadecimal = text.starts_with(b"0x") || text.starts_with(b"0X");
    let digits =
        |from: usize, test: fn(&u8) -> bool| from + text[from..].iter().take_while(|b| test(b)).count();
    let length =
        if is_hexadecimal { digits(2, u8::is_ascii_hexdigit) } else { digits(0, u8::is_ascii_digit) };
    let (digits, rest) = text.split_at(length);
    let unit = UNITS.iter().find(|(name, _)| rest.starts_with(name.as_bytes()));
    let (name, factor) = unit.copied().unwrap_or(("", 1));
    let value = match crate::fwup::number::parse_i64(digits) {
        Some(value) => value,
        None if is_hexadecimal && length > 2 || !is_hexadecimal && digits.first() != Some(&b'0') => {
            return Some(Err(EvalError::Overflow));
        }
        None => return None,
    };
    Some(value.checked_mul(factor).ok_or(EvalError::Overflow).map(|value| (value, &rest[name.len()..])))
}

/// Longer names first.
const UNITS: [(&str, i64); 10] = [
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("c", 1),
    ("w", 2),
    ("b", 512),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("", 1),
];

const MOST_PENDING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for (text, value) in [
            ("1 + 2 * 3 - (4 - 1)", 4),
            ("2^10", 1024),
            ("2^3^2", 512),
            ("-2^2", -4),
            ("2^-0", 1),
            ("1M / 1b + 2K", 4096),
            ("--3", 3),
            ("0x10+010", 24),
            ("7/-2", -3),
            ("3kB", 3000),
        ] {
            assert_eq!(evaluate(text.as_bytes()), Ok(value), "{text}");
        }
    }

    #[test]
    fn wrong_expressions_are_refused() {
        assert_eq!(evaluate(b"1/0"), Err(EvalError::DivisionByZero));
        assert_eq!(evaluate(b"2^64"), Err(EvalError::Exponent));
        assert_eq!(evaluate(b"9223372036854775807+1"), Err(EvalError::Overflow));
        assert_eq!(evaluate(b"99999999999999999999"), Err(EvalError::Overflow));
        assert_eq!(evaluate("(".repeat(17).as_bytes()), Err(EvalError::TooDeep));
        for text in ["", "1+", "(1", "1)", "1 2", "a", "08", "*1", "()"] {
            assert!(evaluate(text.as_bytes()).is_err(), "{text}");
        }
    }
}
