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
ZHOU2016 = Reference(
    "zhou2016",
    "B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba",
    "Learning Deep Features for Discriminative Localization",
    "IEEE Conference on Computer Vision and Pattern Recognition (CVPR), 2921–2929",
    2016,
    "10.1109/CVPR.2016.319",
)
SELVARAJU2017 = Reference(
    "selvaraju2017",
    "R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra",
    "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization",
    "IEEE International Conference on Computer Vision (ICCV), 618–626",
    2017,
    "10.1109/ICCV.2017.74",
)
