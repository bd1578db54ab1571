//! How API servers say that they have no room to store anything.

/// Whether an answer says so: etcd behind a kube-apiserver beyond its quota, the embedded API server with a full disk,
/// or anything by HTTP's own code.
pub fn is_full(code: u16, message: &str) -> bool {
    match code {
        507 => true,
        500 => message.contains("database space exceeded") || message.contains("the store cannot write"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_full;

    #[test]
    fn a_full_store_is_known_by_its_words() {
        for (code, message, wanted) in [
            (
                500,
                "rpc error: code = ResourceExhausted desc = etcdserver: mvcc: database space exceeded",
                true,
            ),
            (500, "etcdserver: mvcc: database space exceeded", true),
            (
                500,
                "the store cannot write: I/O error: File too large (os error 27)",
                true,
            ),
            (507, "", true),
            (500, "etcdserver: request timed out", false),
            (422, "database space exceeded is no name", false),
            (503, "the store cannot write", false),
        ] {
            assert_eq!(is_full(code, message), wanted, "{code} {message}");
        }
    }
}
