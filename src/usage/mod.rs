//! What each dialect says about tokens. Pure: bytes in, values out.
