//! The names of attributes: OpenTelemetry's semantic conventions 1.44, and a
//! few of weir's own for what they have no name for.

macro_rules! attributes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One attribute of a request.
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
        }
    };
}

attributes! {
    /// What the protocol's rules do not allow, or what smells of an attack.
    Anomalies = "weir.anomalies",
    /// Rows that a statement changed.
    DbAffectedRows = "weir.db.affected_rows",
    /// What the database says about how it did it: `slow_query`.
    DbHints = "weir.db.hints",
    /// The database; for Redis, its number.
    DbNamespace = "db.namespace",
    /// How many statements or operations were done together, if more than one.
    DbOperationBatchSize = "db.operation.batch.size",
    /// The statement's first keyword, or the command.
    DbOperationName = "db.operation.name",
    /// Values that were bound to the statement's parameters.
    DbParameters = "weir.db.parameters",
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
    /// How many warnings the database has for the client.
    DbWarnings = "weir.db.warnings",
    /// How many records answered the question.
    DnsAnswerCount = "weir.dns.answer_count",
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
    /// Messages that the server sent.
    RpcReceivedMessages = "weir.rpc.received_messages",
    /// Messages that the client sent.
    RpcSentMessages = "weir.rpc.sent_messages",
    /// Which kind of calls it is.
    RpcSystemName = "rpc.system.name",
    /// The server's name, as the client called it.
    ServerAddress = "server.address",
    /// The server's port, as the client named it.
    ServerPort = "server.port",
    /// The cipher suite that the server chose.
    TlsCipher = "tls.cipher",
    /// `offered`: the hello carries another one, encrypted, or pretends to.
    TlsEncryptedHello = "weir.tls.encrypted_client_hello",
    /// The application protocol that the server chose.
    TlsNextProtocol = "tls.next_protocol",
    /// The application protocols that the client offered.
    TlsOfferedProtocols = "weir.tls.offered_protocols",
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
    /// Messages that the server sent.
    WebsocketReceivedMessages = "weir.websocket.received_messages",
    /// Messages that the client sent.
    WebsocketSentMessages = "weir.websocket.sent_messages",
}
