"""References that several techniques cite."""

from __future__ import annotations

from reportgen.report.document import Reference

ZEILER2014 = Reference(
    "zeiler2014",
    "M. D. Zeiler, R. Fergus",
    "Visualizing and Understanding Convolutional Networks",
    "European Conference on Computer Vision (ECCV), LNCS 8689, 818–833",
    2014,
    "10.1007/978-3-319-10590-1_53",
)
SIXT2020 = Reference(
    "sixt2020",
    "L. Sixt, M. Granz, T. Landgraf",
    "When Explanations Lie: Why Many Modified BP Attributions Fail",
    "International Conference on Machine Learning (ICML), PMLR 119, 9046–9057",
    2020,
)
