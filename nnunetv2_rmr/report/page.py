"""Pages: a template of this folder, filled, as one HTML file that opens anywhere, without network."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nnunetv2_rmr.files.atomic import remove_leftovers, replacing
from nnunetv2_rmr.report import verdict

HERE = Path(__file__).parent
# Names come from users: everything is escaped but Markup. In templates, d["key"] is used for our own keys only and
# d.get(name) for names of users, as jinja2 takes d.copy and a missing d["copy"] for the method.
TEMPLATES = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                        lstrip_blocks=True)
TEMPLATES.filters |= {f.__name__: f for f in (verdict.number, verdict.signed, verdict.percent, verdict.interval,
                                              verdict.p_text, verdict.emphasised)}


def write_page(file: Path, template: str, **content: object) -> None:
    """Write `file`, whole or not at all. content: what the template names."""
    style, *scripts = (Markup((HERE / name).read_text(encoding="utf-8"))
                       for name in ("report.css", "report.js", "viewer.js"))
    page = TEMPLATES.get_template(template).render(style=style, scripts=scripts, **content)
    remove_leftovers([file.parent])
    with replacing(file) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
