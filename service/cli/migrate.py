"""`fleetwatt migrate`: bring the database to the current schema."""

from __future__ import annotations

import rich_click as click

from service.cli.options import client_settings
from service.errors import FleetwattError, SettingsError, first_line, no_answer


@click.command("migrate")
def command() -> None:
    """Create or update tables, functions and roles; safe to run any number of times, also at once.

    Hands over how long data are kept and in which form, too (docs/lifecycle.md).
    Uses FLEETWATT_MIGRATE_DATABASE_URL (else FLEETWATT_DATABASE_URL), whose role may create roles.
    """
    import sqlalchemy.exc

    from service import dsn, migrations
    from service.maintenance import retention

    settings = client_settings()
    url = dsn.of_owner(settings)
    if not url:
        raise SettingsError("no database: set FLEETWATT_MIGRATE_DATABASE_URL to one that may create tables")

    def warn(text: str) -> None:
        click.echo(f"warning: {text}", err=True)

    # What is wrong with the settings is told before anything changes.
    retention.Rules.of(settings)
    try:
        before, after = migrations.migrate(url, warn)
    except sqlalchemy.exc.OperationalError as error:
        raise no_answer(error.orig or error) from None
    except sqlalchemy.exc.DBAPIError as error:
        if settings.log_level == "debug":
            raise
        hint = getattr(getattr(error.orig, "diag", None), "message_hint", None) or "see docs/install.md"
        raise FleetwattError(
            f"the database refused to be migrated: {first_line(error.orig or error)}; {first_line(hint)} "
            "(FLEETWATT_LOG_LEVEL=debug shows the statement)"
        ) from None
    rules = retention.apply(url, settings, warn)
    click.echo(
        f"schema {after} (already current)" if before == after else f"schema {before or 'none'} -> {after}"
    )
    if rules is not None:
        click.echo(f"lifecycle: {rules}")
