//! The grammar of requests (RFC 9110, RFC 9112) and the replies of the proxy itself. Pure: bytes in, values out.
