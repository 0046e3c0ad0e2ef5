"""Where things lie and how much of the machine may be used: one settings object, read from `QUANTBOT_*` variables.

Belongs here: paths and resources of the installation. Does not: anything that changes a number of a result; that is
the configuration of a backtest (`config.BacktestConfig`) and is written into every run.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


def memory_bytes(limit: str) -> int:
    """Return a memory limit such as `2GB` or `500 MB` in bytes."""
    return int(float(limit[:-2]) * {"MB": 10**6, "GB": 10**9}[limit[-2:]])


PREFIX = "QUANTBOT_"
MONTH = r"^\d{4}-(0[1-9]|1[0-2])$"
STORES = ("s3", "gs", "az", "file")
# Settings whose values are shown to nobody.
SECRET = ("runs", "inputs", "catalog", "replicas", "store_options", "replica_options", "alert_urls")
FIRST_MONTH_FILE = ".first-month"


def place_of(url: str) -> str:
    """Return the URL of a place for runs, without a slash at its end. Raises ValueError for what is none."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in STORES or not rest.strip("/"):
        raise ValueError(
            f"must be a URL that begins with {', '.join(f'{name}://' for name in STORES)} and names a place"
        )
    if "@" in rest or "?" in rest or "#" in rest:
        raise ValueError("must hold no credentials, no ? and no #; credentials go into the cloud's own variables")
    return url.rstrip("/")


class Settings(BaseModel):
    """Settings of one home directory (`--home` or `QUANTBOT_HOME`, default: the current directory)."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    home: Path = Field(default_factory=Path.cwd, description="directory under which `data/` and `runs/` lie")
    calls_db: Path | None = Field(None, description="another DuckDB file with a table `alerts`, instead of the store")
    runs: str | None = Field(
        None,
        description="where runs are kept instead of `runs/`: `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///…` ([stores.md](stores.md))",
    )
    inputs: str | None = Field(
        None,
        description="where calls and candles are kept instead of `data/`: `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///…` "
        "([stores.md](stores.md#inputs))",
    )
    catalog: str | None = Field(
        None,
        repr=False,
        description="where machines that share their runs share the catalog, too: such a URL, or `postgresql://user@host/database` ([stores.md](stores.md#one-catalog-for-several-machines))",
    )
    store_options: dict[str, str | bool] = Field(
        {},
        repr=False,
        description="options of these stores as a JSON object, beside the cloud's own variables: endpoint, timeout …",
    )
    replicas: tuple[str, ...] = Field(
        (),
        repr=False,
        description="where `quantbot replicate` and `replicate_hourly` copy the committed runs: such URLs, separated by blanks or commas; none: nowhere ([stores.md](stores.md#copies-elsewhere))",
    )
    replica_options: dict[str, dict[str, str | bool]] = Field(
        {},
        repr=False,
        description="options of those that are not reached by `QUANTBOT_STORE_OPTIONS`, as a JSON object {URL: options}",
    )
    replica_lag_s: float = Field(
        7200.0, ge=0, description="check of the replicas: age at which a committed run must be at each of them"
    )
    cache_limit: str = Field(
        "10GB",
        pattern=r"^\d+(\.\d+)?\s*(MB|GB)$",
        description="most that verified copies of runs in a store may take in `data/cache/`, and as much for those of inputs; those used longest ago go first",
    )
    partitions_start: str = Field(
        "2017-01",
        pattern=MONTH,
        description="first month partition, `YYYY-MM`; where it is not set, the first month with calls is the first partition",
    )
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="threads that decode and replay candles; the results do not depend on it",
    )
    memory_limit: str = Field(
        "2GB",
        pattern=r"^\d+(\.\d+)?\s*(MB|GB)$",
        description="DuckDB's limit while calls and candles are ingested (what does not fit spills to a folder in `data/` that is "
        "gone afterwards) and of a `quantbot query` (which spills nothing and stops); about the most that the outcomes of policies "
        "or of a search take: more policies are replayed in parts, with the same result; and DuckDB's limit while a backtest reads "
        "its calls and their features, at least 128 MB (what does not fit spills to a hidden folder beside the store of calls)",
    )
    lock_timeout_s: float = Field(60.0, ge=0, description="how long a writer waits for another writer")
    staging_max_age_s: float = Field(
        3600.0, ge=0, description="age after which an unlocked staging directory is swept away"
    )
    max_excluded_share: float = Field(
        0.25, ge=0, le=1, description="check of a month: share of its calls that may have no window"
    )
    min_mean_coverage: float = Field(
        0.5, ge=0, le=1, description="check of a month: least mean coverage of its windows"
    )
    max_rejected_share: float = Field(
        0.01, ge=0, le=1, description="check of a month: share of rejected candles in its windows"
    )
    quality_blocks: bool = Field(
        False,
        description="whether nothing is concluded from a month past these three limits, or with an anomaly of severity error (no frontier, V1, walk-forward or evidence; its truth and its anomalies are made); else it is a warning",
    )
    regression_min_z: float = Field(
        -3.0,
        le=0,
        description="check: robust z of a month against the six before it, below which it counts as a regression",
    )
    catalog_sample_files: int = Field(
        20, ge=0, description="check of the catalog: so many files are verified by checksum"
    )
    catalog_max_lag_s: float = Field(
        600.0, ge=0, description="check of the catalog: age at which a committed run must be in it"
    )
    min_free_gb: float = Field(2.0, ge=0, description="check: free disk space at the home, in GB")
    sensor_interval_s: int = Field(
        15,
        ge=1,
        description="how often sensors look, in seconds (the daemon does so every 5 s at most); `alerts_sensor` and `arriving_calls` half as often",
    )
    max_queued_s: float = Field(
        1800.0,
        ge=0,
        description="how long a run may wait in the queue, or a step for its pool, before an alert says so",
    )
    alert_urls: tuple[str, ...] = Field(
        (), repr=False, description="where alerts go: apprise URLs, separated by blanks; none: only to the log"
    )
    ui_url: str = Field(
        "http://127.0.0.1:3000",
        description="address of the web UI, for links in alerts; `quantbot ui` says its own where this is not set",
    )

    fetch_source: str | None = Field(
        None,
        description="source that `fetch_daily` and `inputs/fetched_candles` ask unless told otherwise; none: `fetch_daily` skips",
    )
    fetch_interval: str = Field("5m", description="interval of the candles that they ask for unless told otherwise")
    fetch_per_minute: float | None = Field(
        None, gt=0, description="requests a minute and host of `quantbot fetch`, instead of what each source publishes"
    )
    fetch_backoff_s: float = Field(
        1.0, ge=0, description="pause of `quantbot fetch` before a request is repeated; it doubles with each repetition"
    )
    geckoterminal_url: str = Field("https://api.geckoterminal.com/api/v2", description="where GeckoTerminal is asked")
    birdeye_url: str = Field("https://public-api.birdeye.so", description="where Birdeye is asked")
    binance_vision_url: str = Field("https://data.binance.vision", description="where Binance Vision is asked")
    ccxt_url: str | None = Field(None, description="another host for the exchange of ccxt, such as a proxy")

    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        # pydantic-settings does the same and takes 0.06 s to import, a tenth of a short command.
        environment = {name.upper(): text for name, text in os.environ.items()}
        named = {field: environment.get(PREFIX + field.upper()) for field in cls.model_fields}
        return {field: text for field, text in named.items() if text is not None} | given

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("runs", "inputs")
    @classmethod
    def _kept_in_a_store(cls, url: str | None) -> str | None:
        return None if url is None else place_of(url)

    @field_validator("catalog")
    @classmethod
    def _shared(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        if info.data.get("runs") is None:
            raise ValueError(
                "needs QUANTBOT_RUNS: machines that share no runs would remove each other's from the catalog"
            )
        if url.startswith("postgresql://"):
            if re.search(r"//[^/@]*:[^/@]*@|password=", url):
                raise ValueError("must hold no password; it comes from PGPASSWORD or ~/.pgpass")
            return url
        if url.startswith("file://"):
            raise ValueError("must be a URL that begins with s3://, gs://, az:// or postgresql://")
        return place_of(url)

    @field_validator("replicas", mode="before")
    @classmethod
    def _places(cls, urls: str | tuple[str, ...]) -> tuple[str, ...]:
        given = re.split(r"[\s,]+", urls) if isinstance(urls, str) else urls
        return tuple(dict.fromkeys(place_of(url) for url in given if url))

    @field_validator("replica_options", mode="before")
    @classmethod
    def _as_objects(cls, given: object) -> object:
        try:
            options = json.loads(given or "{}") if isinstance(given, str) else given
        except ValueError:
            raise ValueError("must be a JSON object") from None
        if not isinstance(options, dict) or not all(isinstance(value, dict) for value in options.values()):
            raise ValueError("must be a JSON object whose keys are URLs and whose values are objects")
        return {place_of(url): cls._as_object(value) for url, value in options.items()}

    @field_validator("store_options", mode="before")
    @classmethod
    def _as_object(cls, given: object) -> object:
        try:
            options = json.loads(given or "{}") if isinstance(given, str) else given
        except ValueError:
            raise ValueError("must be a JSON object") from None
        if not isinstance(options, dict) or not all(isinstance(value, str | bool) for value in options.values()):
            raise ValueError("must be a JSON object whose values are texts, true or false")
        return options

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _separate(cls, urls: str | tuple[str, ...]) -> tuple[str, ...]:
        return tuple(urls.split()) if isinstance(urls, str) else urls

    @property
    def memory_bytes(self) -> int:
        """`memory_limit` as a number."""
        return memory_bytes(self.memory_limit)

    @property
    def data_dir(self) -> Path:
        """Inputs and the catalog; everything the user owns but the runs."""
        return self.home / "data"

    @property
    def first_month_file(self) -> Path:
        """The first month that ever had calls, as every ingest of calls notes it; it only ever moves to an earlier month."""
        return self.alerts_db.with_name(FIRST_MONTH_FILE)

    @property
    def first_partition(self) -> str:
        """The first month partition. The code location asks at every start, so nothing but a small file is read."""
        if "partitions_start" in self.model_fields_set:
            return self.partitions_start
        try:
            noted = self.first_month_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return self.partitions_start
        return noted if re.fullmatch(MONTH, noted) else self.partitions_start

    @property
    def runs_dir(self) -> Path:
        """The run directories, `runs/YYYY-MM/run_id=<uuid>/`, or the copies of those that are kept in a store."""
        return self.home / "runs" if self.runs is None else self.folder_of(self.runs)

    def folder_of(self, url: str) -> Path:
        """The folder that a URL of a place for runs names, or that holds the copies of what is kept there."""
        if url.startswith("file://"):
            return Path(url.removeprefix("file://"))
        return self.data_dir / "cache" / hashlib.sha256(url.encode()).hexdigest()[:16]

    @property
    def runs_url(self) -> str | None:
        """The URL of the store that keeps the runs; None: they are in a folder on this machine."""
        return None if self.runs is None or self.runs.startswith("file://") else self.runs

    @property
    def inputs_dir(self) -> Path:
        """The stores of calls and candles, or what mirrors those that are kept in a store."""
        if self.inputs is None:
            return self.data_dir
        if self.inputs.startswith("file://"):
            return Path(self.inputs.removeprefix("file://"))
        return self.data_dir / "cache" / f"inputs-{hashlib.sha256(self.inputs.encode()).hexdigest()[:16]}"

    @property
    def inputs_url(self) -> str | None:
        """The URL of the store that keeps calls and candles; None: they are in a folder on this machine."""
        return None if self.inputs is None or self.inputs.startswith("file://") else self.inputs

    @property
    def inbox_dir(self) -> Path:
        """Files dropped here are ingested by the inbox sensor."""
        return self.data_dir / "inbox"

    @property
    def alerts_db(self) -> Path:
        """The store of calls."""
        return self.calls_db or self.inputs_dir / "alerts.duckdb"

    @property
    def raw_dir(self) -> Path:
        """The raw answers of `quantbot fetch`, one folder per source."""
        return self.data_dir / "raw"

    @property
    def candles_dir(self) -> Path:
        """The store of candles, one folder per interval and month."""
        return self.inputs_dir / "candles"

    @property
    def catalog_db(self) -> Path:
        """The published index over the runs; disposable."""
        return self.data_dir / "backtest_catalog.duckdb"

    @property
    def dashboard_html(self) -> Path:
        """The dashboard, one file to open in a browser; disposable."""
        return self.data_dir / "dashboard.html"
