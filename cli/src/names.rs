//! Names on the command line: what the API would refuse is refused before anything is sent.

use muster_crds::names::validate_cluster_name;

/// Longest object name (RFC 1123 subdomain, as Kubernetes has it).
const MAX_NAME: usize = 253;

/// A cluster's name, which is a namespace's too.
pub fn cluster(name: &str) -> Result<String, String> {
    validate_cluster_name(name).map_err(|problem| format!("a cluster name {problem}"))?;
    Ok(name.to_owned())
}

/// A namespace.
pub fn namespace(name: &str) -> Result<String, String> {
    validate_cluster_name(name).map_err(|problem| format!("a namespace {problem}"))?;
    Ok(name.to_owned())
}

/// A work's name: a DNS subdomain.
pub fn work(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a work's name must have 1 to {MAX_NAME} characters"));
    }
    let label = |label: &str| {
        let ends = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|c| ends(*c))
            && bytes.last().is_some_and(|c| ends(*c))
            && bytes.iter().all(|c| ends(*c) || *c == b'-')
    };
    if !name.split('.').all(label) {
        return Err(
            "a work's name must hold only lower case letters, digits, '-' and '.', and begin and end with a letter or digit".into()
        );
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_api_would_refuse() {
        for good in ["a", "guestbook", "a.b-c.d", "0"] {
            assert_eq!(work(good).unwrap(), good);
        }
        for bad in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a/b",
            "ä",
            &"a".repeat(254),
        ] {
            assert!(work(bad).is_err(), "{bad:?}");
        }
        assert!(cluster("Cluster_1").unwrap_err().contains("lower case"));
        assert!(cluster("a.b").is_err());
        assert_eq!(cluster("cluster1").unwrap(), "cluster1");
        assert!(namespace("").is_err());
    }
}
