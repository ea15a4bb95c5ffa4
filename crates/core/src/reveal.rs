//! What may be shown although it is somebody's data.
//!
//! Parsers leave out everything that may be secret; a [`Reveal`] lets classes
//! of it through. Passwords and whatever else proves who somebody is (the
//! exchanges of authentication, headers, statements and commands that set or
//! name a password) belong to no class: they are never shown.

/// A class of what is left out by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Strings and numbers in SQL.
    SqlLiterals,
    /// Values bound to the parameters of prepared statements.
    Parameters,
    /// Arguments of Redis commands besides keys.
    RedisValues,
    /// Values of a URL's parameters whose names look like secrets.
    QueryStrings,
    /// What databases and gRPC servers quote in their errors.
    ErrorText,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 5] =
        [Self::SqlLiterals, Self::Parameters, Self::RedisValues, Self::QueryStrings, Self::ErrorText];

    /// As on the command line, and in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SqlLiterals => "sql-literals",
            Self::Parameters => "parameters",
            Self::RedisValues => "redis-values",
            Self::QueryStrings => "query-strings",
            Self::ErrorText => "error-text",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::SqlLiterals => 1,
            Self::Parameters => 2,
            Self::RedisValues => 4,
            Self::QueryStrings => 8,
            Self::ErrorText => 16,
        }
    }
}

/// A set of classes: those that may be shown, or those that were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reveal(u8);

impl Reveal {
    /// No class.
    pub const NOTHING: Self = Self(0);

    /// Adds a class.
    pub fn insert(&mut self, class: Class) {
        self.0 |= class.bit();
    }

    /// Whether the class is in it.
    #[must_use]
    pub fn has(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }

    /// Whether there is none in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The classes in it.
    pub fn classes(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |class| self.has(*class))
    }
}

impl FromIterator<Class> for Reveal {
    fn from_iter<I: IntoIterator<Item = Class>>(classes: I) -> Self {
        let mut reveal = Self::NOTHING;
        classes.into_iter().for_each(|class| reveal.insert(class));
        reveal
    }
}

/// Parts of words that say that what stands beside them is a password, or as
/// good as one.
const PASSWORD_WORDS: [&str; 8] = ["pass", "pwd", "secret", "cred", "crypt", "identified", "token", "apikey"];

/// Whether a text names a password or the like: then nothing beside it is
/// shown, whatever may be. It finds too many rather than too few.
#[must_use]
pub fn names_password(text: &str) -> bool {
    let letters: String =
        text.chars().filter(|one| !matches!(one, '_' | '-')).map(|one| one.to_ascii_lowercase()).collect();
    PASSWORD_WORDS.iter().any(|word| letters.contains(word))
}

/// The text as it may be shown where its class may: without control characters;
/// `None` if it names a password.
#[must_use]
pub fn shown(text: &str) -> Option<String> {
    let clean = || text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    (!names_password(text)).then(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        assert!(Reveal::NOTHING.is_empty());
        for class in Class::ALL {
            let one: Reveal = [class].into_iter().collect();
            assert_eq!(one.classes().collect::<Vec<_>>(), [class]);
        }
        let all: Reveal = Class::ALL.into_iter().collect();
        assert_eq!(all.classes().count(), Class::ALL.len());
    }

    #[test]
    fn names_of_passwords_are_found() {
        for text in
            ["UPDATE users SET Password = ?", "user:17:api_key", "client_secret", "db-creds", "pass_word"]
        {
            assert!(names_password(text), "{text}");
        }
        assert!(!names_password("SELECT name FROM orders WHERE id = ?"));
    }
}
