//! What the expressions of a schema cost, each and together, and what is said of those that cost too much.

use crate::error::FieldError;

/// What one expression may cost.
const PER_EXPRESSION: u64 = 10_000_000;
/// What all expressions of a schema may cost together.
const PER_SCHEMA: u64 = 100_000_000;
/// Expressions that cost at least this much are named when all together cost too much, the most expensive ones.
const NAMED_FROM: u64 = PER_SCHEMA / 100;
const NAMED: usize = 4;

/// The costs of a schema's expressions, and where they stand.
#[derive(Debug, Default)]
pub(in crate::schema::cel) struct Total {
    sum: u64,
    named: Vec<(u64, String)>,
}

impl Total {
    /// Counts an expression; the error is that it alone costs too much.
    pub(in crate::schema::cel) fn add(&mut self, cost: u64, field: String, what: &str) -> Option<FieldError> {
        self.sum = self.sum.saturating_add(cost);
        let alone = (cost > PER_EXPRESSION)
            .then(|| FieldError::forbidden(field.clone(), &too_expensive(what, cost, PER_EXPRESSION)));
        if cost >= NAMED_FROM {
            self.named.push((cost, field));
        }
        alone
    }

    /// What is wrong with all of them together.
    pub(in crate::schema::cel) fn errors(mut self, path: &str) -> Vec<FieldError> {
        if self.sum <= PER_SCHEMA {
            return Vec::new();
        }
        self.named.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        let contributed =
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let mut errors: Vec<FieldError> = self
            .named
            .into_iter()
            .take(NAMED)
            .map(|(_, field)| FieldError::forbidden(field, contributed))
            .collect();
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(
            path,
            &too_expensive(what, self.sum, PER_SCHEMA),
        ));
        errors
    }
}

#[allow(clippy::cast_precision_loss)] // shown with a few digits
fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}")
    } else {
        format!("{factor:.1}")
    };
    format!(
        "{what} exceeds budget by factor of {factor}x (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}
