//! `--status`.

use super::FilterError;

/// What an answer says, as users ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusPattern {
    /// `404`, `NXDOMAIN`: exactly this; case does not matter.
    Is(String),
    /// `5xx`, `>=400`: numbers from the first to the last.
    Between(u32, u32),
}

impl StatusPattern {
    /// A number, a class (`5xx`), a comparison (`>=400`, `>399`, `<300`,
    /// `<=299`), or a name.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError::Status(text.to_owned());
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| plain).ok_or_else(wrong)
        };
        for (sign, above, equal) in
            [(">=", true, true), ("<=", false, true), (">", true, false), ("<", false, false)]
        {
            if let Some(digits) = text.strip_prefix(sign) {
                let bound = number(digits.trim())?;
                return Ok(match (above, equal) {
                    (true, true) => Self::Between(bound, u32::MAX),
                    (true, false) => Self::Between(bound.saturating_add(1), u32::MAX),
                    (false, true) => Self::Between(0, bound),
                    (false, false) => Self::Between(0, bound.checked_sub(1).ok_or_else(wrong)?),
                });
            }
        }
        if let [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] = text.as_bytes() {
            let first = u32::from(class - b'0') * 100;
            return Ok(Self::Between(first, first + 99));
        }
        let is_name = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            number(text)?;
        }
        Ok(Self::Is(text.to_owned()))
    }

    pub(super) fn matches(&self, status: &str) -> bool {
        match self {
            Self::Is(exactly) => status.eq_ignore_ascii_case(exactly),
            Self::Between(first, last) => {
                status.parse().is_ok_and(|number: u32| (*first..=*last).contains(&number))
            }
        }
    }
}
