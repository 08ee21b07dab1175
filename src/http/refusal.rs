//! Why a request is refused. Each reason has one status, one code of the documented set, and one plain sentence.

/// What a refusal is to others.
#[derive(Clone, Copy, Debug)]
pub struct RefusalFacts {
    /// The status of the reply.
    pub status: u16,
    /// The documented error code of the reply.
    pub code: &'static str,
    /// The reason as one word in snake case, for counters.
    pub name: &'static str,
    /// The reason as a sentence for the one who sent the request.
    pub message: &'static str,
}

/// What is nobody's fault but the client's.
const BAD: &str = "bad_request";
/// The same of what is too large.
const LARGE: &str = "headers_too_large";

macro_rules! refusals {
    ($($(#[$doc:meta])+ $reason:ident: $status:literal, $code:expr, $name:literal, $message:literal;)+) => {
        /// A reason to refuse. Every one of them closes the connection: after bytes that were not understood, or not
        /// read, nobody can say where the next request begins.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])+ $reason,)+
        }

        impl Refusal {
            /// Every reason, in the order of their declaration.
            pub const ALL: [Refusal; [$($status),+].len()] = [$(Refusal::$reason),+];

            /// What it is to others.
            pub fn facts(self) -> RefusalFacts {
                let (status, code, name, message) = match self {
                    $(Refusal::$reason => ($status, $code, $name, $message),)+
                };
                RefusalFacts { status, code, name, message }
            }
        }
    };
}

// One reason, one line.
refusals! {
    /// The first byte of a TLS handshake: an `https://` address was used.
    TlsHello: 400, BAD, "tls_hello", "This port speaks plain HTTP: use http:// instead of https://.";
    /// More empty lines before the request line than clients are known to send.
    EmptyLines: 400, BAD, "empty_lines", "Too many empty lines before the request.";
    /// Not `method SP target SP version`.
    RequestLine: 400, BAD, "request_line", "The request line is not: method, target, version, with one space between each.";
    /// A method longer than any that is registered.
    MethodTooLong: 501, "not_implemented", "method_too_long", "The method is longer than any that is known.";
    /// CONNECT.
    MethodNotImplemented: 501, "not_implemented", "method_not_implemented", "CONNECT is not implemented: this is not a forward proxy.";
    /// No HTTP version at all.
    VersionInvalid: 400, BAD, "version_invalid", "The request line does not end in an HTTP version.";
    /// An HTTP version other than 1.0 and 1.1, the preface of HTTP/2 included.
    VersionNotSupported: 505, "version_not_supported", "version_not_supported", "Only HTTP/1.1 and HTTP/1.0 are spoken here.";
    /// A target of none of the known forms, or with bytes that no URI holds.
    TargetInvalid: 400, BAD, "target_invalid", "The request target is not a path with an optional query, or holds bytes that no URI may hold.";
    /// A target longer than the limit.
    TargetTooLong: 414, "target_too_long", "target_too_long", "The request target is too long.";
    /// `.` and `..` segments that would lead out of the forwarded paths.
    PathEscapes: 400, BAD, "path_escapes", "The path leads out of the forwarded paths through '..' segments.";
    /// CR without LF, or LF without CR.
    BareLineEnd: 400, BAD, "bare_line_end", "Lines end in CR LF; a CR or an LF stands alone.";
    /// NUL or another control byte.
    ControlByte: 400, BAD, "control_byte", "The request holds a control byte.";
    /// A field line without a colon, or with a name that is no token.
    FieldInvalid: 400, BAD, "field_invalid", "A header field is not: name, colon, value.";
    /// White space between a field's name and its colon.
    SpaceBeforeColon: 400, BAD, "space_before_colon", "There is white space between a header's name and its colon.";
    /// A field line that begins with white space: the obsolete folding, or white space before the first field.
    FoldedField: 400, BAD, "folded_field", "A header line begins with white space; folding is obsolete.";
    /// A field that some servers mistake for Content-Length or Transfer-Encoding.
    LookAlikeField: 400, BAD, "look_alike_field", "A header's name looks like Content-Length or Transfer-Encoding, but is not.";
    /// A head longer than the limit.
    HeadTooLarge: 431, LARGE, "head_too_large", "The request's headers are too large.";
    /// More fields than the limit.
    TooManyFields: 431, LARGE, "too_many_fields", "The request has too many header fields.";
    /// HTTP/1.1 without Host.
    HostMissing: 400, BAD, "host_missing", "The Host header is missing.";
    /// More than one Host.
    HostRepeated: 400, BAD, "host_repeated", "There is more than one Host header.";
    /// A Host or an authority that is no host with an optional port.
    HostInvalid: 400, BAD, "host_invalid", "The Host is not a name or an address with an optional port.";
    /// A Host that is neither local nor allowed.
    HostNotAllowed: 403, "host_not_allowed", "host_not_allowed", "This Host is not served: use an IP address or a local name, or add the name to ALLOWED_HOSTS.";
    /// A page of another origin asks for a local route, or has something generated without a preflight.
    OriginNotAllowed: 403, "origin_not_allowed", "origin_not_allowed", "A web page of another origin may not ask for this. ALLOWED_HOSTS can name hosts whose pages may use the models.";
    /// A Content-Length that is no plain decimal number.
    LengthInvalid: 400, BAD, "length_invalid", "Content-Length is not a plain decimal number.";
    /// More than one Content-Length, or a list of them.
    LengthRepeated: 400, BAD, "length_repeated", "There is more than one Content-Length.";
    /// Both Content-Length and Transfer-Encoding.
    LengthAndCoding: 400, BAD, "length_and_coding", "Content-Length and Transfer-Encoding exclude each other.";
    /// A malformed Transfer-Encoding, or `chunked` not exactly once and last.
    CodingInvalid: 400, BAD, "coding_invalid", "Transfer-Encoding must be 'chunked', once.";
    /// A transfer coding other than chunked.
    CodingUnknown: 501, "not_implemented", "coding_unknown", "No transfer coding but 'chunked' is implemented.";
    /// Transfer-Encoding in HTTP/1.0.
    CodingInOldVersion: 400, BAD, "coding_in_old_version", "HTTP/1.0 has no Transfer-Encoding.";
    /// `Connection` names a field that is not the connection's.
    ConnectionInvalid: 400, BAD, "connection_invalid", "Connection names a header that must reach the server.";
    /// An expectation other than `100-continue`.
    ExpectationFailed: 417, "expectation_failed", "expectation_failed", "No expectation but '100-continue' can be met.";
    /// A malformed chunk size, extension or chunk end.
    ChunkInvalid: 400, BAD, "chunk_invalid", "The chunked body is malformed.";
    /// Longer chunk lines, or more bytes of extensions, than the limit.
    ChunkLineTooLong: 400, BAD, "chunk_line_too_long", "The chunked body has too long chunk extensions.";
    /// A trailer field that frames or routes.
    TrailerInvalid: 400, BAD, "trailer_invalid", "The trailer holds a field that only a header may hold.";
    /// A trailer section longer than the limit.
    TrailersTooLarge: 431, LARGE, "trailers_too_large", "The request's trailer is too large.";
    /// A body longer than the limit.
    BodyTooLarge: 413, "body_too_large", "body_too_large", "The request's body is too large (MAX_BODY_MB).";
    /// The head did not arrive in time.
    HeadTimeout: 408, "request_timeout", "head_timeout", "The request's headers took too long to arrive.";
    /// The body did not arrive in time.
    BodyTimeout: 408, "request_timeout", "body_timeout", "The request's body took too long to arrive.";
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn a_refusal_is_a_client_error_or_something_not_supported() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
            assert!(matches!(refusal.facts().status, 400..=499 | 501 | 505), "{refusal:?}");
            assert!(refusal.facts().name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{refusal:?}");
            assert!(refusal.facts().message.ends_with('.'), "{refusal:?}");
        }
    }
}
