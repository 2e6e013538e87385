"""The report: one line a fault, and what failed."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.chaos.rounds import Result, total


def show(results: list[Result], console: Console, seed: str) -> None:
    """Print a table of all rounds, by fault.

    What HTTP refuses while the database is away is told to its sender, and no letter is owed: the letters may
    be fewer than the refused by as many.
    """
    table = Table(title=f"chaos --seed {seed}: what was sent and found again")
    table.add_column("fault", no_wrap=True)
    for column in (
        "rounds", "sent", "acknowledged", "stored", "lost", "twice", "refused", "letters", "sessions",
        "recovery p50 s", "max s", "exit codes",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for fault in dict.fromkeys(result.fault for result in results):
        table.add_row(fault, *_line([result for result in results if result.fault == fault]))
    table.add_section()
    table.add_row("all", *_line(results))
    console.print(table)
    for result in results:
        backlog = result.backlog
        if backlog and result.fault == "database-down":
            console.print(
                f"{result.fault} ({result.seed}): backlog of {backlog.readings} readings in "
                f"{backlog.seconds:.1f} s, largest batch {backlog.largest_batch}, lag of live readings "
                f"meanwhile p95 {backlog.live_lag_p95_s:.1f} s; breaker {' > '.join(result.breaker)}"
            )
        missed = result.account.acknowledged - result.account.stored
        if result.fault == "kill-broker" and missed > 0:
            console.print(f"kill-broker ({result.seed}): the broker lost {missed} readings it acknowledged")
    not_kept = sum(result.account.not_kept for result in results)
    console.print(f"refused over HTTP while the database was away, and not kept: {not_kept}")
    causes = ", ".join(f"{name} {count}" for name, count in total(results).most_common())
    console.print(f"why senders tried again: {causes or 'they never had to'}")


def _line(results: list[Result]) -> Iterable[str]:
    recovery = [max(result.recovery_s.values()) for result in results if result.recovery_s]
    codes = [code for result in results for code in result.exit_codes]
    accounts = [result.account for result in results]
    return (
        str(len(results)),
        f"{sum(account.sent for account in accounts):,}",
        f"{sum(account.acknowledged for account in accounts):,}",
        f"{sum(account.stored for account in accounts):,}",
        str(sum(len(account.lost) for account in accounts)),
        str(sum(account.twice for account in accounts)),
        f"{sum(account.refused for account in accounts):,}",
        f"{sum(account.letters for account in accounts):,}",
        f"{sum(account.sessions for account in accounts):,}",
        f"{median(recovery):.1f}" if recovery else "",
        f"{max(recovery):.1f}" if recovery else "",
        " ".join(f"{code}x{codes.count(code)}" for code in dict.fromkeys(codes)),
    )
