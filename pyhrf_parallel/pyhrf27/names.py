"""Names allowed in an XML of pyhrf, whose reader imports and calls whatever is named.

The classes are those of pyhrf 0.5 that it can write to XML, except those whose data are pickles.
"""

from __future__ import annotations

_CLASSES = {
    "pyhrf.core": "FMRISessionSurfacicData FMRISessionVolumicData FmriData FmriGroupData",
    "pyhrf.jde.asl": """
        ASLSampler BOLDMixtureSampler BOLDResponseLevelSampler BOLDResponseSampler
        BOLDResponseVarianceSampler DriftCoeffSampler DriftVarianceSampler LabelSampler
        NoiseVarianceSampler PerfBaselineSampler PerfBaselineVarianceSampler PerfMixtureSampler
        PerfResponseLevelSampler PerfResponseSampler PerfResponseVarianceSampler
    """,
    "pyhrf.jde.asl_physio": """
        ASLPhysioSampler BOLDMixtureSampler BOLDResponseLevelSampler DriftCoeffSampler
        DriftVarianceSampler LabelSampler NoiseVarianceSampler PerfBaselineSampler
        PerfBaselineVarianceSampler PerfMixtureSampler PerfResponseLevelSampler
        PhysioBOLDResponseSampler PhysioBOLDResponseVarianceSampler PhysioPerfResponseSampler
        PhysioPerfResponseVarianceSampler
    """,
    "pyhrf.jde.asl_physio_1step": """
        ASLPhysioSampler BOLDMixtureSampler BOLDResponseLevelSampler DriftCoeffSampler
        DriftVarianceSampler LabelSampler NoiseVarianceSampler PerfBaselineSampler
        PerfBaselineVarianceSampler PerfMixtureSampler PerfResponseLevelSampler
        PhysioBOLDResponseSampler PhysioBOLDResponseVarianceSampler PhysioPerfResponseSampler
        PhysioPerfResponseVarianceSampler
    """,
    "pyhrf.jde.asl_physio_1step_params": """
        ASLPhysioSampler BOLDMixtureSampler BOLDResponseLevelSampler DriftCoeffSampler
        DriftVarianceSampler LabelSampler NoiseVarianceSampler PerfBaselineSampler
        PerfBaselineVarianceSampler PerfMixtureSampler PerfResponseLevelSampler
        PhysioBOLDResponseSampler PhysioBOLDResponseVarianceSampler PhysioPerfResponseSampler
        PhysioPerfResponseVarianceSampler
    """,
    "pyhrf.jde.asl_physio_det_fwdm": """
        ASLPhysioSampler BOLDMixtureSampler BOLDResponseLevelSampler DriftCoeffSampler
        DriftVarianceSampler LabelSampler NoiseVarianceSampler PerfBaselineSampler
        PerfBaselineVarianceSampler PerfMixtureSampler PerfResponseLevelSampler
        PhysioBOLDResponseSampler PhysioBOLDResponseVarianceSampler PhysioPerfResponseSampler
        PhysioPerfResponseVarianceSampler
    """,
    "pyhrf.jde.asl_physio_hierarchical": """
        ASLPhysioSampler BOLDMixtureSampler BOLDResponseLevelSampler DriftCoeffSampler
        DriftVarianceSampler LabelSampler NoiseVarianceSampler PerfBaselineSampler
        PerfBaselineVarianceSampler PerfMixtureSampler PerfResponseLevelSampler
        PhysioBOLDResponseSampler PhysioBOLDResponseVarianceSampler PhysioPerfResponseSampler
        PhysioPerfResponseVarianceSampler PhysioTrueBOLDResponseSampler
        PhysioTrueBOLDResponseVarianceSampler
    """,
    "pyhrf.jde.asl_physio_joint": """
        ASLPhysioSampler BOLDMixtureSampler BOLDResponseLevelSampler DriftCoeffSampler
        DriftVarianceSampler LabelSampler NoiseVarianceSampler PerfBaselineSampler
        PerfBaselineVarianceSampler PerfMixtureSampler PerfResponseLevelSampler
        PhysioBOLDResponseSampler PhysioJointResponseVarianceSampler PhysioPerfResponseSampler
    """,
    "pyhrf.jde.beta": "BetaSampler",
    "pyhrf.jde.drift": """
        DriftARSampler DriftSampler DriftSamplerWithRelVar ETASampler ETASampler_MultiSess
    """,
    "pyhrf.jde.hrf": """
        HRFARSampler HRFSampler HRFSamplerWithRelVar HRF_Drift_Sampler
        HRF_Drift_SamplerWithRelVar HRF_two_parts_Sampler HRFwithHabSampler RHSampler
        ScaleSampler
    """,
    "pyhrf.jde.jde_multi_sess": """
        BOLDGibbs_Multi_SessSampler BiGaussMixtureParams_Multi_Sess_NRLsBar_Sampler
        Drift_MultiSess_Sampler ETASampler_MultiSess HRF_MultiSess_Sampler
        NRL_Multi_Sess_Sampler NRLsBar_Drift_Multi_Sess_Sampler
        NoiseVariance_Drift_Multi_Sess_Sampler Variance_GaussianNRL_Multi_Sess
    """,
    "pyhrf.jde.jde_multi_sujets": "BOLDGibbs_Multi_SubjSampler NRLs_Sampler",
    "pyhrf.jde.jde_multi_sujets_alpha": """
        AlphaVar_Sampler Alpha_hgroup_Sampler BOLDGibbs_Multi_SubjSampler
        BiGaussMixtureParamsSampler Drift_MultiSubj_Sampler ETASampler_MultiSubj
        HRFVarianceSubjectSampler HRF_Group_Sampler HRF_Sampler LabelSampler
        MixtureParamsSampler NRLs_Sampler NoiseVariance_Drift_MultiSubj_Sampler RHGroupSampler
        Variance_GaussianNRL_Multi_Subj
    """,
    "pyhrf.jde.models": """
        BOLDGibbsSampler BOLDGibbsSampler_AR CallbackCritDiff Drift_BOLDGibbsSampler
        W_BOLDGibbsSampler W_Drift_BOLDGibbsSampler
    """,
    "pyhrf.jde.noise": """
        NoiseARParamsSampler NoiseVarianceARSampler NoiseVarianceSampler
        NoiseVarianceSamplerWithRelVar NoiseVariance_Drift_Sampler NoiseVariancewithHabSampler
    """,
    "pyhrf.jde.nrl.ar": "NRLARSampler",
    "pyhrf.jde.nrl.bigaussian": """
        BiGaussMixtureParamsSampler BiGaussMixtureParamsSamplerWithRelVar
        BiGaussMixtureParamsSamplerWithRelVar_OLD MixtureWeightsSampler NRLSampler
        NRLSamplerWithRelVar
    """,
    "pyhrf.jde.nrl.bigaussian_drift": """
        NRL_Drift_Sampler NRL_Drift_SamplerWithRelVar NRLsBar_Drift_Multi_Sess_Sampler
    """,
    "pyhrf.jde.nrl.habituation": "NRLwithHabSampler",
    "pyhrf.jde.nrl.trigaussian": "GGGNRLSampler TriGaussMixtureParamsSampler",
    "pyhrf.jde.samplerbase": "GSDefaultCallbackHandler GSPrintCallbackHandler",
    "pyhrf.jde.wsampler": "WSampler W_Drift_Sampler",
    "pyhrf.rfir": "RFIREstim",
    "pyhrf.ui.analyser_ui": "FMRIAnalyser",
    "pyhrf.ui.glm_analyser": "GLMAnalyser",
    "pyhrf.ui.glm_ui": "GLMAnalyser",
    "pyhrf.ui.jde": "JDEAnalyser JDEMCMCAnalyser",
    "pyhrf.ui.rfir_ui": "RFIRAnalyser",
    "pyhrf.ui.treatment": "FMRITreatment",
    "pyhrf.ui.vb_jde_analyser": "JDEVEMAnalyser",
    "pyhrf.ui.vb_jde_analyser_asl_fast": "JDEVEMAnalyser",
    "pyhrf.ui.vb_jde_analyser_bold_fast": "JDEVEMAnalyser",
}

#: Whose instances an XML may ask for.
CLASSES = {f"{module}.{name}" for module, names in _CLASSES.items() for name in names.split()}

#: Their methods that make an instance.
METHODS = {
    f"pyhrf.core.FmriData.{name}"
    for name in (
        "from_surf_files",
        "from_surf_ui",
        "from_vol_files",
        "from_vol_files_rel",
        "from_vol_ui",
    )
}

_OF_NUMPY = """
    bool_ complex64 complex128 float16 float32 float64 int8 int16 int32 int64 string_ uint8 uint16 uint32 uint64
    unicode_
"""

#: Types that are called with the text of an element.
TYPES = {
    f"__builtin__.{name}" for name in ["bool", "complex", "float", "int", "long", "str", "unicode"]
} | {f"numpy.{name}" for name in _OF_NUMPY.split()}

#: Words for everything else.
KINDS = {"Initable", "None", "dict", "list", "ndarray", "odict", "tuple"}
