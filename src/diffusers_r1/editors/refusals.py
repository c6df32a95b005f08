"""Classes of diffusers that take a picture and a prompt, and yet cannot be editors, each with its reason."""

from __future__ import annotations


VIDEO = "it makes a video, not a picture"
LAYERS = "it takes a picture apart into layers and gives no edited picture back"
EMBEDDINGS = "it gives no picture back, but embeddings for another pipeline"
TEXT = "it gives text back, not a picture"
PRIOR = "it is half of a pipeline, and needs the embeddings that the other half makes"
CONTROL_MAP = "its picture is a map of edges, depth or poses that a new picture is made after, not a picture to edit"
CONTROL_TOO = (
    "beside the picture it needs such a map (edges, depth, poses) of each picture, which no plan has and which would no "
    "longer fit after the first turn"
)
VARIATION = "it makes a new picture after the idea of the one that it is given, whose pixels it does not see"
ENLARGES = "it enlarges a picture or adds detail, and is not made to change what is in it"
CASCADE = "it works at 64 pixels a side, as the first stage of a cascade"
UNMAINTAINED = "diffusers keeps it only for old code and no longer maintains it"
TWO_PIPELINES = (
    "it is two pipelines in one, of which the first does not see the picture; FLUX.1 Kontext and later classes edit"
)

_BY_REASON: dict[str, tuple[str, ...]] = {
    VIDEO: (
        "ChronoEditPipeline",
        "CogVideoXImageToVideoPipeline",
        "Cosmos2VideoToWorldPipeline",
        "Cosmos2_5_PredictBasePipeline",
        "Cosmos3OmniPipeline",
        "CosmosVideoToWorldPipeline",
        "HeliosPipeline",
        "HeliosPyramidPipeline",
        "HunyuanSkyreelsImageToVideoPipeline",
        "HunyuanVideo15ImageToVideoPipeline",
        "HunyuanVideoFramepackPipeline",
        "HunyuanVideoImageToVideoPipeline",
        "I2VGenXLPipeline",
        "Kandinsky5I2VPipeline",
        "Kandinsky6TI2VAPipeline",
        "LTX2ImageToVideoPipeline",
        "LTXConditionPipeline",
        "LTXImageToVideoPipeline",
        "MotifVideoImage2VideoPipeline",
        "PIAPipeline",
        "SanaImageToVideoPipeline",
        "SanaWMPipeline",
        "SkyReelsV2DiffusionForcingImageToVideoPipeline",
        "SkyReelsV2ImageToVideoPipeline",
        "WanAnimatePipeline",
        "WanImageToVideoPipeline",
        "Cosmos3DistilledModularPipeline",
        "Cosmos3OmniModularPipeline",
        "EchoModularPipeline",
        "HeliosModularPipeline",
        "HeliosPyramidDistilledModularPipeline",
        "HeliosPyramidModularPipeline",
        "HunyuanVideo15ModularPipeline",
        "LTX25ModularPipeline",
        "LTX2ModularPipeline",
        "LTXModularPipeline",
        "MiniMaxH3ModularPipeline",
        "Wan22Image2VideoModularPipeline",
        "WanAnimate2DistilledModularPipeline",
        "WanAnimate2ModularPipeline",
        "WanImage2VideoModularPipeline",
    ),
    LAYERS: ("QwenImageLayeredPipeline", "QwenImageLayeredModularPipeline"),
    EMBEDDINGS: ("FluxPriorReduxPipeline", "KandinskyV22PriorEmb2EmbPipeline", "StableCascadePriorPipeline"),
    TEXT: ("DiffusionGemmaPipeline",),
    PRIOR: ("KandinskyImg2ImgPipeline", "KandinskyInpaintPipeline"),
    CONTROL_MAP: (
        "StableDiffusionAdapterPipeline",
        "StableDiffusionXLAdapterPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetPAGPipeline",
        "StableDiffusionControlNetXSPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetPAGPipeline",
        "StableDiffusionXLControlNetXSPipeline",
    ),
    CONTROL_TOO: (
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
        "StableDiffusionControlNetPAGInpaintPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
        "StableDiffusionXLControlNetPAGImg2ImgPipeline",
        "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        "StableDiffusionXLControlNetUnionInpaintPipeline",
        "ZImageControlNetInpaintPipeline",
    ),
    VARIATION: (
        "StableCascadeCombinedPipeline",
        "StableUnCLIPImg2ImgPipeline",
        "VersatileDiffusionDualGuidedPipeline",
    ),
    ENLARGES: (
        "HunyuanImageRefinerPipeline",
        "IFImg2ImgSuperResolutionPipeline",
        "IFInpaintingSuperResolutionPipeline",
        "IFSuperResolutionPipeline",
        "StableDiffusionLatentUpscalePipeline",
        "StableDiffusionUpscalePipeline",
    ),
    CASCADE: ("IFImg2ImgPipeline", "IFInpaintingPipeline"),
    TWO_PIPELINES: (
        "KandinskyImg2ImgCombinedPipeline",
        "KandinskyInpaintCombinedPipeline",
        "KandinskyV22Img2ImgCombinedPipeline",
        "KandinskyV22InpaintCombinedPipeline",
    ),
    UNMAINTAINED: (
        "AltDiffusionImg2ImgPipeline",
        "AmusedImg2ImgPipeline",
        "AmusedInpaintPipeline",
        "CycleDiffusionPipeline",
        "StableDiffusionInpaintPipelineLegacy",
        "UniDiffuserPipeline",
    ),
}

REFUSALS: dict[str, str] = {name: reason for reason, names in _BY_REASON.items() for name in names}
"""The reason by the name of the class."""
