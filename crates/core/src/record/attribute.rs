//! What else is known of a request: by names of OpenTelemetry's semantic
//! conventions 1.44, and a few of weir's own for what they have no name for.

use serde::ser::{Serialize, Serializer};
use smallvec::SmallVec;
use smol_str::SmolStr;

macro_rules! attributes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The name of an attribute. In the order of what they are called in records.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Attribute {
            $($(#[$doc])* $variant,)*
        }

        impl Attribute {
            /// Every attribute.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As in records.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// As it stands in JSON before its value, after others: `,"NAME":`.
            #[must_use]
            pub fn json_key(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!(",\"", $name, "\":"),)*
                }
            }

            fn bit(self) -> u64 {
                1 << self as u32
            }
        }
    };
}

attributes! {
    /// The database; for Redis, its number.
    DbNamespace = "db.namespace",
    /// How many statements or operations were done together, if more than one.
    DbOperationBatchSize = "db.operation.batch.size",
    /// The statement's first keyword, or the command.
    DbOperationName = "db.operation.name",
    /// What was asked of the database, redacted.
    DbQueryText = "db.query.text",
    /// How many rows came back.
    DbResponseReturnedRows = "db.response.returned_rows",
    /// As the database says it: its code, number or prefix of an error.
    DbResponseStatusCode = "db.response.status_code",
    /// The script or function that was called.
    DbStoredProcedureName = "db.stored_procedure.name",
    /// Which database it is.
    DbSystemName = "db.system.name",
    /// The name that was asked for.
    DnsQuestionName = "dns.question.name",
    /// The kind of error, where there is one.
    ErrorType = "error.type",
    /// Bytes of the request's body, as sent.
    HttpRequestBodySize = "http.request.body.size",
    /// The method, if it is one of the usual; else `_OTHER`.
    HttpRequestMethod = "http.request.method",
    /// The method, if it is none of the usual.
    HttpRequestMethodOriginal = "http.request.method_original",
    /// Bytes of the answer's body, as sent.
    HttpResponseBodySize = "http.response.body.size",
    /// The answer's status.
    HttpResponseStatusCode = "http.response.status_code",
    /// Version of the protocol.
    NetworkProtocolVersion = "network.protocol.version",
    /// What carries the protocol: `tcp`, `udp`.
    NetworkTransport = "network.transport",
    /// Package, service and method that were called.
    RpcMethod = "rpc.method",
    /// How the call went.
    RpcResponseStatusCode = "rpc.response.status_code",
    /// Which kind of calls it is.
    RpcSystemName = "rpc.system.name",
    /// The server's name, as the client called it.
    ServerAddress = "server.address",
    /// The server's port, as the client named it.
    ServerPort = "server.port",
    /// The cipher suite that the server chose.
    TlsCipher = "tls.cipher",
    /// The application protocol that the server chose.
    TlsNextProtocol = "tls.next_protocol",
    /// `tls` or `ssl`.
    TlsProtocolName = "tls.protocol.name",
    /// The version that the server chose.
    TlsProtocolVersion = "tls.protocol.version",
    /// Path of the URL.
    UrlPath = "url.path",
    /// Query of the URL, redacted.
    UrlQuery = "url.query",
    /// The user as whom the client works.
    UserName = "user.name",
    /// What the client says it is.
    UserAgentOriginal = "user_agent.original",
    /// What the protocol's rules do not allow, or what smells of an attack.
    Anomalies = "weir.anomalies",
    /// Rows that a statement changed.
    DbAffectedRows = "weir.db.affected_rows",
    /// What the database says about how it did it: `slow_query`.
    DbHints = "weir.db.hints",
    /// Values that were bound to the statement's parameters.
    DbParameters = "weir.db.parameters",
    /// How many warnings the database has for the client.
    DbWarnings = "weir.db.warnings",
    /// How many records answered the question.
    DnsAnswerCount = "weir.dns.answer_count",
    /// Messages that the server sent.
    RpcReceivedMessages = "weir.rpc.received_messages",
    /// Messages that the client sent.
    RpcSentMessages = "weir.rpc.sent_messages",
    /// `offered`: the hello carries another one, encrypted, or pretends to.
    TlsEncryptedHello = "weir.tls.encrypted_client_hello",
    /// The application protocols that the client offered.
    TlsOfferedProtocols = "weir.tls.offered_protocols",
    /// Messages that the server sent.
    WebsocketReceivedMessages = "weir.websocket.received_messages",
    /// Messages that the client sent.
    WebsocketSentMessages = "weir.websocket.sent_messages",
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// A number.
    Number(u64),
    /// A text.
    Text(SmolStr),
    /// Several texts.
    Texts(Box<[String]>),
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<SmolStr> for AttributeValue {
    fn from(text: SmolStr) -> Self {
        Self::Text(text)
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Vec<String>> for AttributeValue {
    fn from(texts: Vec<String>) -> Self {
        Self::Texts(texts.into_boxed_slice())
    }
}

/// As many attributes as most requests have at most: these need no memory of their own.
const ATTRIBUTES_USUAL: usize = 8;

/// Attributes, each once, in the order of their names: they are few, and nothing
/// has to be sorted when they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// A bit for each that is there.
    present: u64,
    /// Of those that are there.
    values: SmallVec<[AttributeValue; ATTRIBUTES_USUAL]>,
}

const _: () = assert!(Attribute::ALL.len() <= u64::BITS as usize);

impl Attributes {
    /// The value of this one.
    #[must_use]
    pub fn get(&self, attribute: Attribute) -> Option<&AttributeValue> {
        if self.contains(attribute) { self.values.get(self.place(attribute)) } else { None }
    }

    /// The value of this one, if it is a text.
    #[must_use]
    pub fn text(&self, attribute: Attribute) -> Option<&str> {
        match self.get(attribute) {
            Some(AttributeValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn contains(&self, attribute: Attribute) -> bool {
        self.present & attribute.bit() != 0
    }

    /// Sets this one, whatever it was. Costs least when they are set in their order.
    #[inline]
    pub fn insert(&mut self, attribute: Attribute, value: AttributeValue) {
        if self.present < attribute.bit() {
            self.present |= attribute.bit();
            self.values.push(value);
        } else {
            self.insert_between(attribute, value);
        }
    }

    fn insert_between(&mut self, attribute: Attribute, value: AttributeValue) {
        let place = self.place(attribute);
        if self.contains(attribute) {
            self.values[place] = value;
        } else {
            self.present |= attribute.bit();
            self.values.insert(place, value);
        }
    }

    /// The value of this one, to be changed; of one that is not there, this value.
    pub fn get_or_insert(&mut self, attribute: Attribute, value: AttributeValue) -> &mut AttributeValue {
        if !self.contains(attribute) {
            self.insert(attribute, value);
        }
        let place = self.place(attribute);
        &mut self.values[place]
    }

    /// Takes this one out.
    pub fn remove(&mut self, attribute: Attribute) -> Option<AttributeValue> {
        let place = self.contains(attribute).then(|| self.place(attribute))?;
        self.present &= !attribute.bit();
        Some(self.values.remove(place))
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, &AttributeValue)> {
        let mut left = self.present;
        let names = std::iter::from_fn(move || {
            let attribute = Attribute::ALL.get(left.trailing_zeros() as usize).copied();
            left &= left.wrapping_sub(1);
            attribute
        });
        names.zip(&self.values)
    }

    /// How many stand before this one.
    fn place(&self, attribute: Attribute) -> usize {
        (self.present & (attribute.bit() - 1)).count_ones() as usize
    }
}

impl FromIterator<(Attribute, AttributeValue)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (Attribute, AttributeValue)>>(all: I) -> Self {
        let mut attributes = Self::default();
        all.into_iter().for_each(|(attribute, value)| attributes.insert(attribute, value));
        attributes
    }
}

impl<const N: usize> From<[(Attribute, AttributeValue); N]> for Attributes {
    fn from(all: [(Attribute, AttributeValue); N]) -> Self {
        all.into_iter().collect()
    }
}

/// By their names in records.
impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(attribute, value)| (attribute.name(), value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order() {
        assert!(Attribute::ALL.is_sorted_by_key(|attribute| attribute.name()));
    }

    #[test]
    fn each_is_there_once_and_in_its_place() {
        let mut attributes: Attributes = [
            (Attribute::UrlPath, "/".into()),
            (Attribute::DbNamespace, "0".into()),
            (Attribute::ServerPort, 80.into()),
            (Attribute::DbNamespace, "1".into()),
        ]
        .into();
        *attributes.get_or_insert(Attribute::ServerPort, 0.into()) = 81.into();
        attributes.get_or_insert(Attribute::ErrorType, "500".into());
        assert_eq!(attributes.remove(Attribute::UrlPath), Some("/".into()));
        assert_eq!(attributes.remove(Attribute::UrlPath), None);
        assert!(attributes.contains(Attribute::ErrorType) && !attributes.contains(Attribute::UrlPath));
        assert_eq!(attributes.text(Attribute::DbNamespace), Some("1"));
        assert_eq!(attributes.text(Attribute::ServerPort), None);
        assert_eq!(attributes.get(Attribute::ServerPort), Some(&81.into()));
        let written = serde_json::to_string(&attributes).unwrap();
        assert_eq!(written, r#"{"db.namespace":"1","error.type":"500","server.port":81}"#);
    }
}
