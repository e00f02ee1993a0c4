//! Freeze windows in the settings. Pure: the current time is a parameter.
//!
//! A window is one span of time or repeats every week in the local time of a zone. When local time jumps, the longer
//! reading applies. A window begins when local time first reaches its start, or first jumps over it. It ends when local
//! time reaches its end for the last time.

use std::collections::HashMap;

use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// The weeks around the current one in which occurrences of a weekly window are computed.
const WEEKS: std::ops::RangeInclusive<i64> = -2..=2;

/// The longest chain of adjoining windows that is followed. A longer freeze has no known end.
const MAX_CHAIN: usize = 64;

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The freeze windows of all environments. Environments without windows are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreezeCalendar(HashMap<String, FreezeSchedule>);

/// The freeze windows of one environment, in the order of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreezeSchedule(Vec<FreezeWindow>);

/// A span of time in which an environment accepts no automatic updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeWindow {
    /// Start and end.
    pub span: FreezeSpan,
    /// Shown to users.
    pub reason: Option<String>,
}

/// Start and end of a window. The start is inclusive, the end exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreezeSpan {
    Once {
        /// Before `until`.
        from: Timestamp,
        /// The first instant after the window.
        until: Timestamp,
    },
    /// Every week, from `from` to the next `until`.
    Weekly {
        /// Start; differs from `until`.
        from: WeekTime,
        /// End; may lie in the next week.
        until: WeekTime,
        /// The zone of both times.
        zone: TimeZone,
    },
}

/// A time of the week, such as `Fri 16:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeekTime {
    day: Weekday,
    time: Time,
}

/// Why a text is not a time of the week.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWeekTime {
    /// The first word is not a day.
    #[error("there is no day called `{}`", .0.escape_debug())]
    Day(String),
    /// The text after the day is not a time.
    #[error("`{}` is not a time of day", .0.escape_debug())]
    Time(String),
}

const DAYS: [(&str, &str, Weekday); 7] = [
    ("Mon", "Monday", Weekday::Monday),
    ("Tue", "Tuesday", Weekday::Tuesday),
    ("Wed", "Wednesday", Weekday::Wednesday),
    ("Thu", "Thursday", Weekday::Thursday),
    ("Fri", "Friday", Weekday::Friday),
    ("Sat", "Saturday", Weekday::Saturday),
    ("Sun", "Sunday", Weekday::Sunday),
];

impl WeekTime {
    /// Returns the accepted names of days, short and long. Case is ignored.
    pub fn days() -> impl Iterator<Item = &'static str> + Clone {
        DAYS.iter().map(|(short, _, _)| *short).chain(DAYS.iter().map(|(_, whole, _)| *whole))
    }

    /// Returns the time since Monday, 0:00.
    fn since_monday(self) -> SignedDuration {
        let hours = i64::from(self.day.to_monday_zero_offset()) * 24 + i64::from(self.time.hour());
        SignedDuration::from_hours(hours) + SignedDuration::from_mins(i64::from(self.time.minute()))
    }
}

/// Reads a day and `HH:MM`.
impl std::str::FromStr for WeekTime {
    type Err = InvalidWeekTime;

    fn from_str(text: &str) -> Result<Self, InvalidWeekTime> {
        let (day, time) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let known = |(short, whole, _): &&(&str, &str, Weekday)| {
            day.eq_ignore_ascii_case(short) || day.eq_ignore_ascii_case(whole)
        };
        let day = DAYS.iter().find(known).map(|(_, _, day)| *day);
        let day = day.ok_or_else(|| InvalidWeekTime::Day(text.split_whitespace().next().unwrap_or(text).to_owned()))?;
        let time = time.trim();
        let parsed = || {
            let (hour, minute) = time.split_once(':')?;
            let digits =
                |part: &str, at_most| (1..=at_most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            (digits(hour, 2) && digits(minute, 2) && minute.len() == 2).then_some(())?;
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        Ok(Self { day, time: parsed().ok_or_else(|| InvalidWeekTime::Time(time.to_owned()))? })
    }
}

impl std::fmt::Display for WeekTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let day = DAYS.iter().find(|(_, _, day)| *day == self.day).map_or("", |(short, _, _)| short);
        write!(f, "{day} {:02}:{:02}", self.time.hour(), self.time.minute())
    }
}

impl FreezeSpan {
    /// Returns the first instant at which local time is `at` or later.
    pub fn begins(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
        Self::moment(zone, at, |before, _| before)
    }

    /// Returns the instant from which on local time stays at `at` or later.
    pub fn ends(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
        Self::moment(zone, at, |_, after| after)
    }

    fn moment(
        zone: &TimeZone,
        at: DateTime,
        in_fold: impl Fn(jiff::tz::Offset, jiff::tz::Offset) -> jiff::tz::Offset,
    ) -> Option<Timestamp> {
        match zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(at).ok(),
            AmbiguousOffset::Fold { before, after } => in_fold(before, after).to_timestamp(at).ok(),
            // Local time skips `at`: the instant of the jump counts.
            AmbiguousOffset::Gap { after, .. } => {
                let earlier = after.to_timestamp(at).ok()?;
                zone.following(earlier).next().map(|transition| transition.timestamp())
            }
        }
    }

    /// Returns the occurrences around `now`: at least the current ones and the next.
    fn times(&self, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        match self {
            Self::Once { from, until } => vec![(*from, *until)],
            Self::Weekly { from, until, zone } => {
                let times = WEEKS.filter_map(|week| weekly(*from, *until, zone, now, week));
                times.filter(|(from, until)| from < until).collect()
            }
        }
    }

    /// Returns the end of the occurrence that contains `now`; `None`: no occurrence does.
    pub fn end_of(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.times(now).into_iter();
        times.filter(|(from, until)| *from <= now && now < *until).map(|(_, until)| until).max()
    }

    /// Returns the current or next occurrence; `None`: the last one is over.
    pub fn now_or_next(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.times(now).into_iter().filter(|(_, until)| now < *until).min()
    }
}

/// Returns the occurrence of a weekly window that begins `week` weeks after the week of `now`.
fn weekly(
    from: WeekTime,
    until: WeekTime,
    zone: &TimeZone,
    now: Timestamp,
    week: i64,
) -> Option<(Timestamp, Timestamp)> {
    let today = zone.to_datetime(now).date();
    let monday = today.checked_sub(SignedDuration::from_hours(24 * i64::from(today.weekday().to_monday_zero_offset())));
    let monday =
        monday.ok()?.to_datetime(Time::midnight()).checked_add(SignedDuration::from_hours(7 * 24 * week)).ok()?;
    let begins = monday.checked_add(from.since_monday()).ok()?;
    let ahead = until.since_monday() - from.since_monday();
    let ends = begins.checked_add(if ahead.is_positive() { ahead } else { ahead + WEEK }).ok()?;
    Some((FreezeSpan::begins(zone, begins)?, FreezeSpan::ends(zone, ends)?))
}

impl std::fmt::Display for FreezeSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Once { from, until } => write!(f, "{from:.0} to {until:.0}"),
            Self::Weekly { from, until, zone } => {
                write!(f, "{from} to {until} {}", zone.iana_name().unwrap_or("local time"))
            }
        }
    }
}

impl FreezeSchedule {
    /// Creates a schedule.
    pub fn new(windows: Vec<FreezeWindow>) -> Self {
        Self(windows)
    }

    /// Returns the windows, in the order of the settings.
    pub fn windows(&self) -> &[FreezeWindow] {
        &self.0
    }

    /// Returns the windows that contain `now`, with the end of each.
    pub fn active(&self, now: Timestamp) -> impl Iterator<Item = (&FreezeWindow, Timestamp)> {
        self.0.iter().filter_map(move |window| Some((window, window.span.end_of(now)?)))
    }

    /// Returns whether the weekly windows together cover the whole week.
    pub fn is_endless(&self) -> bool {
        let weekly = self.0.iter().filter(|window| matches!(window.span, FreezeSpan::Weekly { .. }));
        let weekly = Self(weekly.cloned().collect());
        let some_day = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 56);
        !weekly.0.is_empty()
            && weekly.active(some_day).next().is_some()
            && frozen_until(some_day, |at| weekly.end(at)).is_none()
    }

    /// Returns the latest end of the windows that contain `now`; `None`: no window does.
    pub fn end(&self, now: Timestamp) -> Option<Timestamp> {
        self.active(now).map(|(_, end)| end).max()
    }

    /// Returns the next instant at which a window begins or ends.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.0.iter().flat_map(|window| window.span.times(now));
        times.flat_map(|(from, until)| [from, until]).filter(|at| *at > now).min()
    }
}

/// Returns the end of the freeze at `now`, across adjoining windows. `None`: the end is unknown.
///
/// `end` returns the latest end of all freezes at an instant: `None` if there is none, [`Timestamp::MAX`] if it has no
/// end.
pub fn frozen_until(now: Timestamp, end: impl Fn(Timestamp) -> Option<Timestamp>) -> Option<Timestamp> {
    let mut at = now;
    for _ in 0..MAX_CHAIN {
        match end(at) {
            None => return Some(at),
            Some(never) if never == Timestamp::MAX => return None,
            Some(later) => at = later,
        }
    }
    None
}

impl FreezeCalendar {
    /// Creates a calendar from the schedules of environments.
    pub fn new(schedules: impl IntoIterator<Item = (String, FreezeSchedule)>) -> Self {
        Self(schedules.into_iter().filter(|(_, schedule)| !schedule.0.is_empty()).collect())
    }

    /// Returns the schedule of an environment; `None`: it has no windows.
    pub fn of(&self, environment: &str) -> Option<&FreezeSchedule> {
        self.0.get(environment)
    }

    /// Returns the environments that have windows.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the next instant at which any window of any environment begins or ends.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().filter_map(|schedule| schedule.next_change(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZoneDatabase;
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZoneDatabase::bundled().get(name).unwrap()
    }

    fn weekly(from: &str, until: &str, name: &str) -> FreezeSpan {
        FreezeSpan::Weekly { from: from.parse().unwrap(), until: until.parse().unwrap(), zone: zone(name) }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(spans: &[FreezeSpan]) -> FreezeSchedule {
        FreezeSchedule::new(spans.iter().map(|span| FreezeWindow { span: span.clone(), reason: None }).collect())
    }

    #[test]
    fn times_of_the_week_are_parsed() {
        for (text, shown) in [
            ("Fri 16:00", "Fri 16:00"),
            ("friday 16:00", "Fri 16:00"),
            ("SUN  0:05", "Sun 00:05"),
            ("Mon 23:59", "Mon 23:59"),
        ] {
            assert_eq!(text.parse::<WeekTime>().unwrap().to_string(), shown);
        }
        for (text, message) in [
            ("Frday 16:00", "there is no day called `Frday`"),
            ("Fri", "`` is not a time of day"),
            ("Fri 24:00", "`24:00` is not a time of day"),
            ("Fri 16", "`16` is not a time of day"),
            ("Fri 16:0", "`16:0` is not a time of day"),
            ("Fri +4:00", "`+4:00` is not a time of day"),
        ] {
            assert_eq!(text.parse::<WeekTime>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn window_may_span_the_end_of_the_week() {
        let weekend = weekly("Fri 16:00", "Mon 08:00", "Europe/Berlin");
        // 2026-11-27 is a Friday; Berlin is an hour ahead of UTC in winter.
        assert_eq!(weekend.end_of(at("2026-11-27T14:59:59Z")), None);
        assert_eq!(weekend.end_of(at("2026-11-27T15:00:00Z")), Some(at("2026-11-30T07:00:00Z")));
        assert_eq!(weekend.end_of(at("2026-11-30T06:59:59Z")), Some(at("2026-11-30T07:00:00Z")));
        assert_eq!(weekend.end_of(at("2026-11-30T07:00:00Z")), None);
        let noon = at("2026-11-25T12:00:00Z");
        assert_eq!(weekend.now_or_next(noon), Some((at("2026-11-27T15:00:00Z"), at("2026-11-30T07:00:00Z"))));
        assert_eq!(schedule(&[weekend]).next_change(noon), Some(at("2026-11-27T15:00:00Z")));
    }

    #[test]
    fn daylight_saving_time_moves_start_and_end() {
        let weekend = weekly("Fri 16:00", "Mon 08:00", "Europe/Berlin");
        // Summer time begins on 2026-03-29 and ends on 2026-10-25.
        assert_eq!(weekend.end_of(at("2026-03-28T12:00:00Z")), Some(at("2026-03-30T06:00:00Z")));
        assert_eq!(weekend.end_of(at("2026-10-24T12:00:00Z")), Some(at("2026-10-26T07:00:00Z")));
        let mumbai = weekly("Sat 00:00", "Sun 00:00", "Asia/Kolkata");
        assert_eq!(mumbai.end_of(at("2026-11-27T18:30:00Z")), Some(at("2026-11-28T18:30:00Z")));
        assert_eq!(mumbai.end_of(at("2026-11-27T18:29:59Z")), None);
    }

    #[test]
    fn skipped_and_repeated_hours_do_not_shorten_a_window() {
        // New York skips 2:00 to 3:00 on 2026-03-08 and repeats 1:00 to 2:00 on 2026-11-01.
        let night = weekly("Sun 02:30", "Sun 04:00", "America/New_York");
        assert_eq!(
            night.now_or_next(at("2026-03-07T00:00:00Z")),
            Some((at("2026-03-08T07:00:00Z"), at("2026-03-08T08:00:00Z")))
        );
        let gone = weekly("Sun 02:10", "Sun 02:20", "America/New_York");
        assert_eq!(gone.end_of(at("2026-03-08T07:00:00Z")), None);
        let twice = weekly("Sun 01:10", "Sun 01:20", "America/New_York");
        assert_eq!(
            twice.now_or_next(at("2026-10-31T00:00:00Z")),
            Some((at("2026-11-01T05:10:00Z"), at("2026-11-01T06:20:00Z")))
        );
    }

    #[test]
    fn adjoining_windows_are_one_freeze() {
        let windows = schedule(&[
            weekly("Fri 16:00", "Mon 08:00", "Europe/Berlin"),
            FreezeSpan::Once { from: at("2026-11-30T07:00:00Z"), until: at("2026-12-02T00:00:00Z") },
        ]);
        let saturday = at("2026-11-28T12:00:00Z");
        assert_eq!(frozen_until(saturday, |at| windows.end(at)), Some(at("2026-12-02T00:00:00Z")));
        assert_eq!(frozen_until(saturday, |_| Some(Timestamp::MAX)), None);
        assert!(!windows.is_endless());
        let whole = [weekly("Mon 00:00", "Thu 12:00", "UTC"), weekly("Thu 11:00", "Mon 00:00", "UTC")];
        assert!(schedule(&whole).is_endless());
        assert!(!schedule(&whole[..1]).is_endless());
    }

    // Compares every minute with the definition in the module's docstring.
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn weekly_window_follows_local_time(
            place in prop::sample::select(vec![
                ("Europe/Berlin", "2026-03-29T01:00:00Z"), ("Europe/Berlin", "2026-10-25T01:00:00Z"),
                ("America/New_York", "2026-03-08T07:00:00Z"), ("America/New_York", "2026-11-01T06:00:00Z"),
                ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"), ("Asia/Kolkata", "2026-06-01T00:00:00Z"),
                ("UTC", "2026-12-31T00:00:00Z"),
            ]),
            from in 0i64..7 * 24 * 60,
            length in prop_oneof![1i64..180, 1i64..7 * 24 * 60],
            near in any::<bool>(),
        ) {
            let zone = zone(place.0);
            let change = at(place.1);
            let clock_of = |at: Timestamp| zone.to_datetime(at);
            // Half of the windows begin within three hours of the jump.
            let of_week = |at: DateTime| i64::from(at.weekday().to_monday_zero_offset()) * 1440
                + i64::from(at.hour()) * 60 + i64::from(at.minute());
            let from = if near { (of_week(clock_of(change)) - 180 + from % 360).rem_euclid(10080) } else { from };
            let time = |minutes: i64| WeekTime {
                day: Weekday::from_monday_zero_offset((minutes / 1440) as i8).unwrap(),
                time: Time::new((minutes / 60 % 24) as i8, (minutes % 60) as i8, 0, 0).unwrap(),
            };
            let span = FreezeSpan::Weekly { from: time(from), until: time((from + length) % 10080), zone: zone.clone() };
            // All occurrences that can overlap the two days around the jump.
            let begin = change - SignedDuration::from_hours(24 * 16);
            let minutes = 24 * 60 * 24usize;
            let clock: Vec<DateTime> =
                (0..minutes).map(|minute| clock_of(begin + SignedDuration::from_mins(minute as i64))).collect();
            let mut highest = clock.clone();
            (1..minutes).for_each(|i| highest[i] = highest[i].max(highest[i - 1]));
            let mut lowest = clock.clone();
            (0..minutes - 1).rev().for_each(|i| lowest[i] = lowest[i].min(lowest[i + 1]));
            let first = clock[0].date().to_datetime(Time::midnight());
            let first = first.checked_sub(SignedDuration::from_mins(of_week(first))).unwrap();
            let windows: Vec<(DateTime, DateTime)> = (0..5).map(|week| {
                let from = first.checked_add(SignedDuration::from_mins(week * 10080 + from)).unwrap();
                (from, from.checked_add(SignedDuration::from_mins(length)).unwrap())
            }).collect();
            for minute in 24 * 60 * 15..24 * 60 * 17 {
                let now = begin + SignedDuration::from_mins(minute as i64);
                let expected = windows.iter().any(|(from, until)| highest[minute] >= *from && lowest[minute] < *until);
                prop_assert_eq!(span.end_of(now).is_some(), expected, "{} at {}", &span, now);
            }
        }
    }
}
