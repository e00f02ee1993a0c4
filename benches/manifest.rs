//! What finding and setting sites costs, beside what the parser alone costs on the same bytes.
//!
//! `cargo bench --bench manifest`. Figures are the best of several runs, on one core.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "support/manifests.rs"]
mod manifests;

use std::hint::black_box;
use std::time::{Duration, Instant};

use manifests::fill;
use tagrelay::image::Version;
use tagrelay::manifest::{Wanted, edit, may_hold_sites, scan};

const FILES: usize = 10_000;
const LINES: usize = 60;
const RUNS: usize = 5;

fn main() {
    let deployments: Vec<String> = (0..FILES).map(|number| deployment(number, LINES)).collect();
    // A service of a real repository has a Service, a ConfigMap and the like beside its Deployment.
    let mixed: Vec<String> =
        (0..FILES).map(|n| if n % 3 == 0 { deployment(n, LINES) } else { config_map(n) }).collect();

    for (title, files) in [("every file holds a site", &deployments), ("one file in three holds a site", &mixed)] {
        let bytes: usize = files.iter().map(String::len).sum();
        println!("{FILES} manifests of {LINES} lines, {:.1} MB; {title}", bytes as f64 / 1e6);
        report("byte search", bytes, || files.iter().filter(|text| may_hold_sites(text.as_bytes())).count());
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

/// Prints the best of several runs, and returns it in seconds.
fn report(name: &str, bytes: usize, mut work: impl FnMut() -> usize) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let begin = Instant::now();
        black_box(work());
        best = best.min(begin.elapsed());
    }
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
