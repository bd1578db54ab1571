//! Schedules of CronJobs: five fields, or a word for one, as robfig/cron reads them.

/// What each field is called in numbers and names.
struct Bounds {
    from: u32,
    to: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds {
        from: 0,
        to: 59,
        names: &[],
    },
    Bounds {
        from: 0,
        to: 23,
        names: &[],
    },
    Bounds {
        from: 1,
        to: 31,
        names: &[],
    },
    Bounds {
        from: 1,
        to: 12,
        names: &MONTHS,
    },
    Bounds {
        from: 0,
        to: 6,
        names: &DAYS,
    },
];
const WORDS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// Why a schedule is none.
pub(super) fn complaint(schedule: &str) -> Option<String> {
    if schedule.is_empty() {
        return Some("empty spec string".into());
    }
    if schedule.starts_with('@') {
        let known = WORDS.contains(&schedule) || schedule.starts_with("@every ");
        return (!known).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    fields
        .iter()
        .zip(&FIELDS)
        .flat_map(|(field, bounds)| {
            field
                .split(',')
                .filter(|part| !part.is_empty())
                .map(move |part| (part, bounds))
        })
        .find_map(|(part, bounds)| range(part, bounds).err())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    if let Some(at) = bounds
        .names
        .iter()
        .position(|name| text.eq_ignore_ascii_case(name))
    {
        return Ok(bounds.from + u32::try_from(at).unwrap_or(0));
    }
    let number: i64 = text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })?;
    u32::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

fn range(part: &str, bounds: &Bounds) -> Result<(), String> {
    let steps: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = steps[0].split('-').collect();
    let single = ends.len() == 1;
    let (first, mut last) = if matches!(ends[0], "*" | "?") {
        (bounds.from, bounds.to)
    } else {
        let first = number(ends[0], bounds)?;
        match ends.as_slice() {
            [_] => (first, first),
            [_, last] => (first, number(last, bounds)?),
            _ => return Err(format!("too many hyphens: {part}")),
        }
    };
    let step = match steps.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = number(
                step,
                &Bounds {
                    from: 0,
                    to: 0,
                    names: &[],
                },
            )?;
            if single {
                last = bounds.to;
            }
            step
        }
        _ => return Err(format!("too many slashes: {part}")),
    };
    if first < bounds.from {
        return Err(format!(
            "beginning of range ({first}) below minimum ({}): {part}",
            bounds.from
        ));
    }
    if last > bounds.to {
        return Err(format!(
            "end of range ({last}) above maximum ({}): {part}",
            bounds.to
        ));
    }
    if first > last {
        return Err(format!(
            "beginning of range ({first}) beyond end of range ({last}): {part}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn schedules() {
        for (schedule, want) in [
            ("* * * * *", None),
            ("*/5 0-12,14 1 jan-mar MON", None),
            ("@hourly", None),
            ("@every 1h", None),
            ("60 * * * *", Some("end of range (60) above maximum (59): 60")),
            (
                "*/0 * * * *",
                Some("step of range should be a positive number: */0"),
            ),
            (
                "5-1 * * * *",
                Some("beginning of range (5) beyond end of range (1): 5-1"),
            ),
            ("@frob", Some("unrecognized descriptor: @frob")),
            (
                "a * * * *",
                Some("failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ),
            ("* * *", Some("expected exactly 5 fields, found 3: [* * *]")),
        ] {
            assert_eq!(complaint(schedule).as_deref(), want, "{schedule}");
        }
    }
}
