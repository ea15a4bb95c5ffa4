//! Which statement it is, as far as that says where a password stands.

use smol_str::SmolStr;

/// What is known of the statement that is being read.
#[derive(Default)]
pub(super) struct Statement {
    pub(super) begun: bool,
    /// Its first two keywords, in capitals.
    first: SmolStr,
    second: SmolStr,
    pub(super) masked: Masked,
}

/// What is left out besides literals.
#[derive(Default, PartialEq, Eq)]
pub(super) enum Masked {
    #[default]
    Nothing,
    /// Everything up to the statement's end.
    Statement,
    /// Everything: where the statement ends cannot be told for certain.
    Everything,
}

impl Statement {
    /// Whether the next keyword, in capitals, announces a password, or something that holds one.
    pub(super) fn hides_after(&mut self, word: &str) -> bool {
        if self.first.is_empty() {
            self.first = word.into();
        } else if self.second.is_empty() && !matches!(word, "OR" | "REPLACE") {
            self.second = word.into();
        }
        match (self.first.as_str(), self.second.as_str()) {
            _ if word == "IDENTIFIED" => true,
            ("SET", "PASSWORD") => true,
            ("CHANGE", "MASTER" | "REPLICATION") => word == "TO",
            ("START", "SLAVE" | "REPLICA" | "GROUP_REPLICATION") => matches!(word, "USER" | "PASSWORD"),
            ("CREATE" | "ALTER", "USER" | "ROLE" | "GROUP" | "SERVER" | "SUBSCRIPTION" | "FOREIGN") => {
                matches!(word, "PASSWORD" | "OPTIONS" | "CONNECTION")
            }
            _ => false,
        }
    }
}
