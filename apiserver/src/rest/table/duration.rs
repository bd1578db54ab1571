//! Durations as kubectl shows them: at most two units, coarser the longer they are.

/// The duration of so many seconds, like `3m12s`, `47h` or `2d3h` (apimachinery `util/duration`).
pub fn human_duration(seconds: i64) -> String {
    fn two(high: i64, unit: char, low: i64, low_unit: char) -> String {
        if low == 0 {
            format!("{high}{unit}")
        } else {
            format!("{high}{unit}{low}{low_unit}")
        }
    }
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, 'm', s % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}
