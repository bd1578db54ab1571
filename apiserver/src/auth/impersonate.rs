//! Acting as somebody else: `Impersonate-*` headers, each thing taken on being allowed by verb `impersonate`.

use super::tokens::{SERVICE_ACCOUNTS_GROUP, split_service_account};
use super::types::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Attributes, UserInfo};
use crate::error::ApiError;
use http::HeaderMap;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
/// Who a kubelet is, and the group it is in.
const NODE_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
/// API group of the extra fields and uids one may take on.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who a request wants to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Reads the headers; `None` when there are none of them.
pub fn requested(headers: &HeaderMap) -> Result<Option<Wanted>, ApiError> {
    let mut wanted = Wanted::default();
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("impersonate-") {
            continue;
        }
        let Ok(value) = value.to_str() else {
            return Err(ApiError::BadRequest(format!("header {name} is not text")));
        };
        match name {
            USER => value.clone_into(&mut wanted.user),
            UID => value.clone_into(&mut wanted.uid),
            GROUP => wanted.groups.push(value.to_owned()),
            _ => {
                // What Kubernetes does not know either is let pass.
                let Some(key) = name.strip_prefix(EXTRA) else {
                    continue;
                };
                wanted
                    .extra
                    .entry(unescape(key))
                    .or_default()
                    .push(value.to_owned());
            }
        }
    }
    if wanted == Wanted::default() {
        return Ok(None);
    }
    if wanted.user.is_empty() {
        let groups: Vec<String> = wanted.groups.iter().map(|g| format!("{g:?}")).collect();
        let groups = if groups.is_empty() {
            "[]string(nil)".to_owned()
        } else {
            format!("[]string{{{}}}", groups.join(", "))
        };
        let list = |values: &[String]| {
            let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        };
        let extra: Vec<String> = wanted
            .extra
            .iter()
            .map(|(key, values)| format!("{key:?}:{}", list(values)))
            .collect();
        let extra = if extra.is_empty() {
            "map[string][]string(nil)".to_owned()
        } else {
            format!("map[string][]string{{{}}}", extra.join(", "))
        };
        return Err(ApiError::BadRequest(format!(
            "requested &user.DefaultInfo{{Name:\"\", UID:{:?}, Groups:{groups}, Extra:{extra}}} without \
             impersonating a user name",
            wanted.uid
        )));
    }
    Ok(Some(wanted))
}

impl Wanted {
    /// The user taken on, if `allowed` lets `from` take on every part of it.
    pub fn authorize(
        self,
        from: &UserInfo,
        allowed: impl Fn(&Attributes) -> Result<(), ApiError>,
    ) -> Result<UserInfo, ApiError> {
        for attributes in self.attributes() {
            allowed(&attributes)?;
        }
        tracing::debug!(from = from.name, to = self.user, "impersonation");
        Ok(self.user())
    }

    fn attributes(&self) -> Vec<Attributes> {
        let verb = "impersonate";
        let mut all = vec![match split_service_account(&self.user) {
            Some((namespace, name)) => Attributes::resource(verb, "", "serviceaccounts", namespace, name),
            None => Attributes::resource(verb, "", "users", "", &self.user),
        }];
        all.extend(
            self.groups
                .iter()
                .map(|g| Attributes::resource(verb, "", "groups", "", g)),
        );
        for (key, values) in &self.extra {
            all.extend(values.iter().map(|value| Attributes {
                subresource: key.clone(),
                ..Attributes::resource(verb, AUTHENTICATION, "userextras", "", value)
            }));
        }
        if !self.uid.is_empty() {
            all.push(Attributes::resource(verb, AUTHENTICATION, "uids", "", &self.uid));
        }
        for attributes in &mut all {
            attributes.version = "v1".into();
        }
        all
    }

    fn user(self) -> UserInfo {
        let mut user = UserInfo {
            name: self.user,
            uid: self.uid,
            groups: self.groups,
            extra: self.extra,
        };
        if user.groups.is_empty()
            && let Some((namespace, _)) = split_service_account(&user.name)
        {
            user.groups = vec![
                SERVICE_ACCOUNTS_GROUP.into(),
                format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}"),
            ];
        }
        if user.groups.is_empty() && user.name.starts_with(NODE_PREFIX) {
            user.groups = vec![NODES_GROUP.into()];
        }
        if user.name == ANONYMOUS {
            return user.with_group(ALL_UNAUTHENTICATED);
        }
        if user.in_group(ALL_UNAUTHENTICATED) {
            user
        } else {
            user.with_group(ALL_AUTHENTICATED)
        }
    }
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn unescape(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = escaped
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte {
            out.push(byte);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (k, v) in pairs {
            map.append(
                k.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(v).unwrap(),
            );
        }
        map
    }

    #[test]
    fn each_part_is_asked_for_and_the_groups_follow() {
        // (headers, what must be allowed as `group|resource|namespace|name`, resulting groups)
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (
                &[("Impersonate-User", "alice")],
                &["|users||alice"],
                &["system:authenticated"],
            ),
            (
                &[
                    ("Impersonate-User", "alice"),
                    ("Impersonate-Group", "a"),
                    ("Impersonate-Group", "b"),
                ],
                &["|users||alice", "|groups||a", "|groups||b"],
                &["a", "b", "system:authenticated"],
            ),
            (
                &[("Impersonate-User", "system:node:n1")],
                &["|users||system:node:n1"],
                &["system:nodes", "system:authenticated"],
            ),
            (
                &[("Impersonate-User", "system:serviceaccount:ns:bot")],
                &["|serviceaccounts|ns|bot"],
                &[
                    "system:serviceaccounts",
                    "system:serviceaccounts:ns",
                    "system:authenticated",
                ],
            ),
            (
                &[
                    ("Impersonate-User", "system:serviceaccount:ns:bot"),
                    ("Impersonate-Group", "g"),
                ],
                &["|serviceaccounts|ns|bot", "|groups||g"],
                &["g", "system:authenticated"],
            ),
            (
                &[("Impersonate-User", ANONYMOUS)],
                &["|users||system:anonymous"],
                &["system:unauthenticated"],
            ),
            (
                &[
                    ("Impersonate-User", "a"),
                    ("Impersonate-Extra-acme.com%2fscope", "v"),
                    ("Impersonate-Uid", "7"),
                ],
                &[
                    "|users||a",
                    "authentication.k8s.io|userextras/acme.com/scope||v",
                    "authentication.k8s.io|uids||7",
                ],
                &["system:authenticated"],
            ),
        ];
        for (input, expected, groups) in cases {
            let asked = std::cell::RefCell::new(Vec::new());
            let wanted = requested(&headers(input)).unwrap().unwrap();
            let user = wanted
                .authorize(&UserInfo::loopback(), |a| {
                    assert_eq!(a.verb, "impersonate");
                    let line = format!("{}|{}|{}|{}", a.group, a.combined_resource(), a.namespace, a.name);
                    asked.borrow_mut().push(line);
                    Ok(())
                })
                .unwrap();
            assert_eq!(
                (&*asked.borrow(), &user.groups),
                (&own(expected), &own(groups)),
                "{input:?}"
            );
        }
    }

    fn own(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn one_no_is_a_no() {
        let wanted = requested(&headers(&[
            ("impersonate-user", "a"),
            ("impersonate-group", SYSTEM),
        ]))
        .unwrap();
        let from = UserInfo::new("bob", [ALL_AUTHENTICATED]);
        let error = wanted.unwrap().authorize(&from, |a| {
            if a.name == SYSTEM {
                Err(a.forbidden(&from, ""))
            } else {
                Ok(())
            }
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "groups \"system:masters\" is forbidden: User \"bob\" cannot impersonate resource \"groups\" in API group \"\" \
             at the cluster scope"
        );
    }

    const SYSTEM: &str = "system:masters";

    #[test]
    fn parts_without_a_user_are_an_error_and_other_headers_nothing() {
        assert!(requested(&headers(&[("impersonate-group", "g")])).is_err());
        assert!(requested(&headers(&[("impersonate-uid", "g")])).is_err());
        assert_eq!(
            requested(&headers(&[("accept", "x"), ("impersonate-frob", "y")])),
            Ok(None)
        );
    }

    #[test]
    fn keys_are_unescaped() {
        for (input, expected) in [
            ("a%2fb", "a/b"),
            ("a%zzb", "a%zzb"),
            ("%", "%"),
            ("%4", "%4"),
            ("%+1", "%+1"),
        ] {
            assert_eq!(unescape(input), expected);
        }
    }
}
