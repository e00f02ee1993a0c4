//! Measures finding and setting sites, next to a plain parse of the same bytes and `grep`.
//!
//! `cargo bench --bench manifest`. Figures are the best of several runs on one core. Own figures are processor time, so
//! other load has little effect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tagrelay_image::Version;
use tagrelay_manifest::{Wanted, edit, may_hold_sites, scan};
use tagrelay_test_support::manifests::{self, fill};

const FILES: usize = 10_000;
const LINES: usize = 60;
const RUNS: usize = 5;

fn main() {
    let deployments: Vec<String> = (0..FILES).map(|number| deployment(number, LINES)).collect();
    // In real repositories, a service also has a Service, a ConfigMap and so on.
    let mixed: Vec<String> =
        (0..FILES).map(|n| if n % 3 == 0 { deployment(n, LINES) } else { config_map(n) }).collect();

    for (title, files) in [("every file holds a site", &deployments), ("one file in three holds a site", &mixed)] {
        let bytes: usize = files.iter().map(String::len).sum();
        println!("{FILES} manifests of {LINES} lines, {:.1} MB; {title}", bytes as f64 / 1e6);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, files.concat()).unwrap();
        report_by_clock("grep -c image:", bytes, || grep(file.path()));
        report_by_clock("byte search", bytes, || files.iter().filter(|text| may_hold_sites(text.as_bytes())).count());
        report("plain parse", bytes, || {
            files.iter().map(|text| granit_parser::Parser::new_from_str(text).count()).sum()
        });
        report("scan", bytes, || files.iter().map(|text| scan("a.yaml", text.as_bytes()).unwrap().len()).sum());
    }

    let text = deployment(1, 152);
    let repository = "registry.example.com/shop/service-1".parse().unwrap();
    let wanted = [Wanted { repository, version: Version::tagged("123e456".parse().unwrap(), None) }];
    println!("one manifest of {} bytes", text.len());
    let repeated = |work: &dyn Fn() -> usize| (0..1_000).map(|_| work()).sum();
    let bytes = text.len() * 1_000;
    let parse = report("plain parse", bytes, || repeated(&|| granit_parser::Parser::new_from_str(&text).count()));
    let edited = report("edit with proof", bytes, || {
        repeated(&|| edit("a.yaml", text.as_bytes(), &wanted).unwrap().changes.len())
    });
    println!("  one edit with proof takes {:.1} µs, {:.1} plain parses", edited * 1e3, edited / parse);
}

/// Measures `grep` over one file with all manifests, including the start of the process.
fn grep(file: &Path) -> usize {
    let output = Command::new("grep").args(["-c", "-F", "image:"]).arg(file).env("LC_ALL", "C").output();
    let output = output.expect("grep is installed");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default()
}

/// The processor time of this thread, or the time since `begin` if the system does not provide it.
fn processor_time(begin: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanoseconds.map_or_else(|| begin.elapsed(), Duration::from_nanos)
}

/// Prints the best processor time of several runs, and returns it in seconds.
fn report(name: &str, bytes: usize, mut work: impl FnMut() -> usize) -> f64 {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let before = processor_time(begin);
        black_box(work());
        best = best.min(processor_time(begin) - before);
    }
    print(name, bytes, best)
}

/// Prints the best wall time of several runs of another program.
fn report_by_clock(name: &str, bytes: usize, mut work: impl FnMut() -> usize) {
    let run = |_| {
        let begin = Instant::now();
        black_box(work());
        begin.elapsed()
    };
    let best = (0..RUNS).map(run).min().unwrap_or_default();
    print(name, bytes, best);
}

fn print(name: &str, bytes: usize, best: Duration) -> f64 {
    let seconds = best.as_secs_f64();
    println!("  {name:<16} {seconds:>8.4} s {:>10.1} MB/s", bytes as f64 / 1e6 / seconds);
    seconds
}

fn deployment(number: usize, lines: usize) -> String {
    let image = format!("registry.example.com/shop/service-{number}:9f8e7d6c5b4a39281706f5e4d3c2b1a098765432");
    manifests::deployment(&format!("service-{number}"), &image, lines)
}

fn config_map(number: usize) -> String {
    let mut text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: service-{number}\ndata:\n");
    fill(&mut text, LINES, |text, entry| *text += &format!("  setting-{entry}: the value of setting {entry}\n"));
    text
}
