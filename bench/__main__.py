"""`python -m bench [SECTION …]`: measures, keeps the figures in bench/results.json, and writes from all that is kept
the tables (terminal, bench/RESULTS.md, those of README.md and docs/findings.md) and the plots (bench/plots)."""

import argparse
import signal
import sys

from . import BENCH, page_cache, pages, plots, report
from .figures import Figures
from .sections import SECTIONS, SHORT
from .server import Servers
from .sizes import Sizes


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end with the bench
    figures = Figures(options.figures)
    names = options.sections or ([] if options.draw else list(SECTIONS) if options.full else SHORT)
    if names:
        if not options.smoke:
            page_cache.keep_full()
        with Servers() as servers:
            for name in names:
                section = SECTIONS[name]
                print(f"bench: {name}: {section.TITLE}", file=sys.stderr, flush=True)
                figures.keep(name, section.measure(servers, Sizes.of(options)), servers, options)
    if not options.smoke:
        plots.draw(figures)
        pages.write(figures)
    report.write(figures, names, into=None if options.smoke else BENCH / "RESULTS.md")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("sections", nargs="*", help="what to measure; otherwise the short form's")
    parser.add_argument("--full", action="store_true", help="every section, more rounds, millions of jobs")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that everything runs; keeps no figures")
    parser.add_argument("--rounds", type=int, help="instead of the form's own")
    parser.add_argument("--draw", action="store_true", help="measure nothing: tables and plots of what is kept")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    options.figures = None if options.smoke else BENCH / "results.json"
    return options


if __name__ == "__main__":
    main()
