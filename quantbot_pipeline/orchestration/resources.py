"""Resources: what assets need from outside. There is one, the lab: which home directory, and its settings."""

from typing import TYPE_CHECKING

import dagster as dg

from quantbot_pipeline.settings import Settings

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home


class Lab(dg.ConfigurableResource):
    """The home directory under which data/ and runs/ lie; by default QUANTBOT_HOME or the current directory."""

    home: str | None = None
    calls_db: str | None = None

    def settings(self) -> Settings:
        """Return the settings of this home; the rest comes from `QUANTBOT_*` variables."""
        given = {"home": self.home, "calls_db": self.calls_db}
        return Settings.model_validate({key: value for key, value in given.items() if value})

    def open(self) -> "Home":
        """Return the home with its stores, runs and catalog."""
        from quantbot_pipeline.home import Home

        return Home(self.settings())
